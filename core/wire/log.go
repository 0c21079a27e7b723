package wire

import "time"

// LogOptions choose what of the logs of a service's tasks is wanted.
type LogOptions struct {
	Stdout     bool      `json:"stdout,omitempty"`
	Stderr     bool      `json:"stderr,omitempty"`
	Follow     bool      `json:"follow,omitempty"`
	Timestamps bool      `json:"timestamps,omitempty"`
	Details    bool      `json:"details,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Until      time.Time `json:"until,omitzero"`
	Tail       int       `json:"tail"` // the last lines of each task; -1: all
}
