// Package zran reads a gzip blob from places in its middle.
//
// DEFLATE (RFC 1951) is a run of blocks. Where one begins, decompression can begin as well, given the bit
// at which it does and the 32 KiB that came out before, to which the block refers. Scan decompresses a blob
// once and tells such places, Inflate begins at one. Neither Go's nor other maintained decoders tell where
// their blocks begin, so the decoder is one of our own:
//
//	huffman.go  the tables of codes
//	inflate.go  the blocks
//	gzip.go     the members around them (RFC 1952)
//
// Checksums of gzip are passed over: who scans compares the digest of the whole, who inflates that of the part.
package zran

import (
	"errors"
	"io"

	"github.com/sampan-project/sampan/core/fault"
)

// Window is how far blocks refer back (RFC 1951, section 2).
const Window = 32 << 10

// Place is where a block begins.
type Place struct {
	Bit   int64 // in the blob; bit 0 of a byte is its lowest
	Plain int64 // in what it decompresses to
}

// Scan decompresses the gzip blob r into w. It calls mark at the first block, and then at the first block
// of which the place is every bytes or more after the last one that was marked; w has got all that comes before.
// The window is what the block may refer to, and belongs to the caller during the call only.
func Scan(r io.Reader, w io.Writer, every int64, mark func(at Place, window []byte) error) error {
	d := newDecoder(r, w)
	if err := d.header(); err != nil {
		return corrupt(err)
	}
	next := int64(0)
	for {
		if plain := d.plain(); plain >= next {
			if err := d.flush(); err != nil {
				return err
			}
			if err := mark(Place{d.bit(), plain}, d.window()); err != nil {
				return err
			}
			next = plain + every
		}
		last, err := d.block()
		if err == nil && last {
			last, err = d.member()
		}
		if err != nil {
			return corrupt(err)
		}
		if last {
			return d.flush()
		}
	}
}

// Inflate returns the n bytes that follow a place. packed is the blob from the byte with the place's bit on, to
// at least the end of the block with the last of the n bytes.
func Inflate(packed io.Reader, at Place, window []byte, n int64) ([]byte, error) {
	out := &exact{data: make([]byte, 0, n)}
	d := newDecoder(packed, out)
	d.refer(window)
	if err := d.skip(uint(at.Bit & 7)); err != nil {
		return nil, corrupt(err)
	}
	for d.plain() < n {
		last, err := d.block()
		if err == nil && last {
			last, err = d.member()
		}
		if err != nil {
			return nil, corrupt(err)
		}
		if last {
			break
		}
	}
	if err := d.flush(); err != nil {
		return nil, err
	}
	if int64(len(out.data)) != n {
		return nil, fault.New(fault.Invalid, "compressed data: it ends after %d bytes: expected %d", len(out.data), n)
	}
	return out.data, nil
}

// exact takes as many bytes as it has room for.
type exact struct{ data []byte }

func (e *exact) Write(p []byte) (int, error) {
	if len(p) > cap(e.data)-len(e.data) {
		return 0, fault.New(fault.Invalid, "compressed data: it has more than %d bytes", cap(e.data))
	}
	e.data = append(e.data, p...)
	return len(p), nil
}

// broken is data that is not what the RFCs say.
type broken string

func (b broken) Error() string { return string(b) }

// corrupt gives what is wrong with data its class; other errors, as those of readers, stay as they are.
func corrupt(err error) error {
	var b broken
	if errors.As(err, &b) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Invalid, "compressed data: %w", err)
	}
	return err
}
