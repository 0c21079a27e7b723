package runtime

import "os"

// SealSelf returns a copy of the running program in a sealed memfd.
func SealSelf() (*os.File, error) { return nil, nil }
