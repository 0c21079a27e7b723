package route

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/sampan-project/sampan/core/wire"
)

// Progress is an answer that tells how work goes on: one wire.Message a line, each sent at once.
// The status is decided by what comes first, a message or an error.
type Progress struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool
	gone  error
}

// NewProgress returns a progress stream on w.
func NewProgress(w http.ResponseWriter) *Progress { return &Progress{w: w} }

// Send writes a message. It may be called in parallel. That the client went away is no concern of
// the one who reports: the request's context says so.
func (p *Progress) Send(m wire.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return
	}
	line, err := json.Marshal(m)
	if err != nil {
		p.gone = err
		return
	}
	if !p.begun {
		p.begun = true
		p.w.Header().Set("Content-Type", "application/json")
	}
	// Docker ends the lines of these streams with CR LF.
	if _, err := p.w.Write(append(line, '\r', '\n')); err != nil {
		p.gone = err
		return
	}
	p.gone = http.NewResponseController(p.w).Flush()
}

// End finishes the stream. An error is the answer's status when nothing was sent before it, and
// the last message otherwise.
func (p *Progress) End(err error) error {
	p.mu.Lock()
	begun := p.begun
	p.mu.Unlock()
	switch {
	case err == nil && !begun:
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
		return nil
	case err == nil:
		return nil
	case !begun:
		return err
	}
	p.Send(wire.Message{Error: Words(err), ErrorDetail: &wire.ErrorDetail{Message: Words(err)}})
	return nil
}
