package image

import (
	"encoding/binary"
	"errors"
	"io"
)

var errDictionary = errors.New("its dictionary is larger than 128 MiB")

// xzGuard hands on a stream in the xz format (its specification, version 1.2), and ends it before a block whose dictionary
// would take too much memory: each block has a dictionary of its own, and the decoder makes it as large as it says.
type xzGuard struct {
	r     io.Reader
	check int64 // bytes of the check at the end of a block
	had   []byte
	want  int // bytes that step takes
	step  func(g *xzGuard, p []byte) error
	skip  int64
	data  int64 // bytes of the block behind its header, or of the index
	// Of the index: the number that is read, and how many come; below zero, the first of them says it.
	number, bits uint64
	left         int64
}

func newXZGuard(r io.Reader) *xzGuard { return &xzGuard{r: r, want: 12, step: (*xzGuard).header} }

func (g *xzGuard) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if seen := g.see(p[:n]); seen != nil {
		return 0, seen
	}
	return n, err
}

// see walks through the structure of what was read.
func (g *xzGuard) see(p []byte) error {
	for len(p) > 0 && g.step != nil {
		if g.skip > 0 {
			n := min(g.skip, int64(len(p)))
			g.skip -= n
			p = p[n:]
			continue
		}
		n := min(g.want-len(g.had), len(p))
		g.had = append(g.had, p[:n]...)
		p = p[n:]
		if len(g.had) < g.want {
			return nil
		}
		if err := g.step(g, g.had); err != nil {
			return err
		}
		g.had = g.had[:0]
	}
	return nil
}

func (g *xzGuard) then(want int, step func(g *xzGuard, p []byte) error) { g.want, g.step = want, step }

// header is that of the stream (2.1.1): its flags name the check.
func (g *xzGuard) header(p []byte) error {
	return g.flags(p[7])
}

func (g *xzGuard) flags(p byte) error {
	g.check = 0
	if kind := p & 0xf; kind > 0 {
		g.check = 4 << ((kind - 1) / 3)
	}
	g.then(1, (*xzGuard).block)
	return nil
}

// index has two numbers for each block, behind how many there are (4.2); another stream may follow its footer.
func (g *xzGuard) index(p []byte) error {
	g.data++
	if g.bits > 56 {
		return errors.New("its index is broken")
	}
	g.number |= uint64(p[0]&0x7f) << g.bits
	g.bits += 7
	if p[0]&0x80 != 0 {
		return nil
	}
	if g.left--; g.left < 0 {
		if g.number > 1<<40 {
			return errors.New("its index is broken")
		}
		g.left = int64(g.number) * 2
	}
	g.number, g.bits = 0, 0
	if g.left == 0 {
		const sum, footer = 4, 12
		g.skip = -g.data&3 + sum + footer
		g.then(4, (*xzGuard).padding)
	}
	return nil
}

// padding of zeros may be between streams (2.2).
func (g *xzGuard) padding(p []byte) error {
	if [4]byte(p) != [4]byte{} {
		g.then(8, func(g *xzGuard, p []byte) error { return g.flags(p[3]) })
	}
	return nil
}

// block begins with the size of its header (3.1.1); zero is the index.
func (g *xzGuard) block(p []byte) error {
	if p[0] == 0 {
		g.data, g.number, g.bits, g.left = 1, 0, 0, 0
		g.then(1, (*xzGuard).index)
		return nil
	}
	g.data = 0
	g.then(int(p[0])*4+3, (*xzGuard).filters)
	return nil
}

// filters reads flags, sizes and filters of a block (3.1.2 to 3.1.5). LZMA2 has one byte of properties (5.3.1).
func (g *xzGuard) filters(p []byte) error {
	const lzma2 = 0x21
	broken := errors.New("its block header is broken")
	flags, p := p[0], p[1:]
	number := func() (uint64, bool) {
		v, n := binary.Uvarint(p)
		if n <= 0 {
			return 0, false
		}
		p = p[n:]
		return v, true
	}
	for _, present := range []byte{flags & 0x40, flags & 0x80} {
		if present == 0 {
			continue
		}
		if _, ok := number(); !ok {
			return broken
		}
	}
	for range flags&3 + 1 {
		id, ok := number()
		size, sized := number()
		if !ok || !sized || size > uint64(len(p)) {
			return broken
		}
		if id == lzma2 {
			if size != 1 {
				return broken
			}
			if bits := p[0] & 0x3f; bits >= 40 || uint64(2|bits&1)<<(bits/2+11) > maxWindow {
				return errDictionary
			}
		}
		p = p[size:]
	}
	g.then(1, (*xzGuard).chunk)
	return nil
}

// chunk begins with a byte that says what it is (LZMA2; Igor Pavlov's LZMA SDK, lzma2dec).
func (g *xzGuard) chunk(p []byte) error {
	g.data++
	switch c := p[0]; {
	case c == 0: // the end of the block, and what fills it up
		g.skip = -g.data&3 + g.check
		g.then(1, (*xzGuard).block)
	case c < 3:
		g.then(2, func(g *xzGuard, p []byte) error { return g.content(2, p) })
	case c >= 0xc0:
		g.then(5, func(g *xzGuard, p []byte) error { return g.content(5, p[2:]) })
	case c >= 0x80:
		g.then(4, func(g *xzGuard, p []byte) error { return g.content(4, p[2:]) })
	default:
		return errors.New("it has a chunk of an unknown kind")
	}
	return nil
}

// content passes over the bytes of a chunk, whose size is behind it.
func (g *xzGuard) content(head int64, size []byte) error {
	g.skip = int64(binary.BigEndian.Uint16(size)) + 1
	g.data += head + g.skip
	g.then(1, (*xzGuard).chunk)
	return nil
}
