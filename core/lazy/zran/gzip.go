package zran

import "io"

// Flags of a member's header (RFC 1952, section 2.3.1).
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	flagReserved  = 0xe0
)

// header passes over the header of a member.
func (d *decoder) header() error {
	var h [10]byte
	for i := range h {
		if err := d.byte(&h[i]); err != nil {
			return err
		}
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 || h[3]&flagReserved != 0 {
		return broken("it has no header of gzip")
	}
	if h[3]&flagExtra != 0 {
		n, err := d.take(16)
		if err == nil {
			err = d.drop(int(n))
		}
		if err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if h[3]&flag == 0 {
			continue
		}
		for b := byte(1); b != 0; {
			if err := d.byte(&b); err != nil {
				return err
			}
		}
	}
	if h[3]&flagHeaderCRC != 0 {
		return d.drop(2)
	}
	return nil
}

// member ends a member, behind its last block, and begins the next one; last: there is none. What the next one
// has refers to nothing before it.
func (d *decoder) member() (last bool, err error) {
	d.align()
	if err := d.drop(8); err != nil { // CRC32 and ISIZE
		return false, err
	}
	if d.refill(); d.nb == 0 {
		if d.err != io.EOF { //nolint:errorlint // as io.Reader has it
			return false, d.err
		}
		return true, nil
	}
	if err := d.header(); err != nil {
		return false, err
	}
	d.low = d.at
	return false, nil
}

func (d *decoder) byte(to *byte) error {
	b, err := d.take(8)
	*to = byte(b)
	return err
}

func (d *decoder) drop(n int) error {
	var b byte
	for range n {
		if err := d.byte(&b); err != nil {
			return err
		}
	}
	return nil
}
