package zran

import (
	"encoding/binary"
	"io"
	"sync"
)

const (
	// keep is how many bytes before those that are read stay in the buffer: those in the word of bits can be
	// given back.
	keep     = 8
	readSize = 64 << 10
	outSize  = Window + 96<<10
	maxMatch = 258
)

// decoder decompresses blocks, one by one.
type decoder struct {
	src  io.Reader
	in   []byte
	pos  int   // in in
	end  int   // of what was read into it
	base int64 // place of in[0] in the source
	err  error // of the source: io.EOF at its end

	word uint64 // the next bits, from the lowest up. What lies above nb is 0, or what comes next anyway
	nb   uint   // how many of them count

	w     io.Writer
	out   []byte
	at    int   // out[:at] has come out
	sent  int   // out[:sent] is written
	low   int   // out[low:at] may be referred to
	start int64 // place of out[0] in what comes out

	literals, distances huffman
	lengths             [maxLiterals + maxDistances]uint8
}

func newDecoder(src io.Reader, w io.Writer) *decoder {
	return &decoder{src: src, w: w, in: make([]byte, keep+readSize), pos: keep, end: keep, base: -keep, out: make([]byte, outSize)}
}

// refer gives the first block what it may refer to.
func (d *decoder) refer(window []byte) {
	window = window[max(0, len(window)-Window):]
	n := copy(d.out, window)
	d.at, d.sent, d.start = n, n, int64(-n)
}

// plain is how much has come out.
func (d *decoder) plain() int64 { return d.start + int64(d.at) }

// bit is the place of the next bit.
func (d *decoder) bit() int64 { return (d.base+int64(d.pos))*8 - int64(d.nb) }

// window is what the next block may refer to.
func (d *decoder) window() []byte { return d.out[max(d.low, d.at-Window):d.at] }

// flush writes what has come out and makes room for more.
func (d *decoder) flush() error {
	if d.sent < d.at {
		if _, err := d.w.Write(d.out[d.sent:d.at]); err != nil {
			return err
		}
	}
	if shift := d.at - Window; shift > 0 {
		copy(d.out, d.out[shift:d.at])
		d.at, d.low, d.start = Window, max(0, d.low-shift), d.start+int64(shift)
	}
	d.sent = d.at
	return nil
}

// fill reads from the source; at its end err is set.
func (d *decoder) fill() {
	if d.err != nil {
		return
	}
	copy(d.in[:keep], d.in[d.end-keep:d.end])
	d.base += int64(d.end - keep)
	d.pos, d.end = keep, keep
	n := 0
	for try := 0; n == 0 && d.err == nil; try++ {
		if n, d.err = d.src.Read(d.in[keep:]); n == 0 && try == 100 {
			d.err = io.ErrNoProgress
		}
	}
	d.end += n
}

// refill brings at least 56 bits into the word, or all that there are.
func (d *decoder) refill() {
	if d.end-d.pos >= 8 {
		d.word |= binary.LittleEndian.Uint64(d.in[d.pos:]) << d.nb
		d.pos += int(63-d.nb) >> 3
		d.nb |= 56
		return
	}
	for d.nb < 56 {
		if d.pos == d.end {
			if d.fill(); d.pos == d.end {
				return
			}
		}
		d.word |= uint64(d.in[d.pos]) << d.nb
		d.pos++
		d.nb += 8
	}
}

// short is the error of a source that ended too early, or had another.
func (d *decoder) short() error {
	if d.err == nil || d.err == io.EOF { //nolint:errorlint // as io.Reader has it
		return io.ErrUnexpectedEOF
	}
	return d.err
}

// take takes up to 32 bits.
func (d *decoder) take(n uint) (uint32, error) {
	if d.nb < n {
		if d.refill(); d.nb < n {
			return 0, d.short()
		}
	}
	v := uint32(d.word & (1<<n - 1))
	d.word >>= n
	d.nb -= n
	return v, nil
}

func (d *decoder) skip(n uint) error {
	_, err := d.take(n)
	return err
}

// align goes to the next byte.
func (d *decoder) align() {
	n := d.nb & 7
	d.word >>= n
	d.nb -= n
}

// block decompresses a block; last: the member has no more (RFC 1951, section 3.2.3).
func (d *decoder) block() (last bool, err error) {
	head, err := d.take(3)
	if err != nil {
		return false, err
	}
	last = head&1 == 1
	switch head >> 1 {
	case 0:
		return last, d.stored()
	case 1:
		f := fixed()
		return last, d.codes(&f[0], &f[1])
	case 2:
		if err := d.dynamic(); err != nil {
			return false, err
		}
		return last, d.codes(&d.literals, &d.distances)
	}
	return false, broken("a block of an unknown type")
}

// stored copies a block that is not compressed (section 3.2.4).
func (d *decoder) stored() error {
	d.align()
	n, err := d.take(32)
	if err != nil {
		return err
	}
	if n&0xffff != ^n>>16 {
		return broken("the length of a block and its complement differ")
	}
	// What is in the word is given back.
	d.pos -= int(d.nb / 8)
	d.word, d.nb = 0, 0
	for left := int(n & 0xffff); left > 0; {
		if d.at == len(d.out) {
			if err := d.flush(); err != nil {
				return err
			}
		}
		if d.pos == d.end {
			if d.fill(); d.pos == d.end {
				return d.short()
			}
		}
		m := copy(d.out[d.at:min(len(d.out), d.at+left)], d.in[d.pos:d.end])
		d.at, d.pos, left = d.at+m, d.pos+m, left-m
	}
	return nil
}

// The alphabets (section 3.2.7). A block says how many of a code's symbols have lengths; more than these are
// none that mean something.
const (
	maxLiterals  = 286
	maxDistances = 30
	endOfBlock   = 256
)

// lengthOrder is the order of the lengths of the codes for lengths.
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block (section 3.2.7).
func (d *decoder) dynamic() error {
	head, err := d.take(14)
	if err != nil {
		return err
	}
	literals, distances, n := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if literals > maxLiterals || distances > maxDistances {
		return broken("a block with more codes than there are")
	}
	var lengths [19]uint8
	for _, symbol := range lengthOrder[:n] {
		v, err := d.take(3)
		if err != nil {
			return err
		}
		lengths[symbol] = uint8(v)
	}
	if !d.literals.build(lengths[:]) {
		return broken("lengths that make no code")
	}
	all := d.lengths[:literals+distances]
	if err := d.readLengths(all); err != nil {
		return err
	}
	if !d.literals.build(all[:literals]) || !d.distances.build(all[literals:]) {
		return broken("lengths that make no code")
	}
	return nil
}

// readLengths reads the lengths of both codes, which are compressed themselves.
func (d *decoder) readLengths(all []uint8) error {
	for i := 0; i < len(all); {
		if d.nb < maxCode {
			d.refill()
		}
		e := d.literals.find(d.word)
		if e == 0 {
			return d.noCode()
		}
		if err := d.skip(uint(e & lengthMask)); err != nil {
			return err
		}
		symbol := uint8(e >> 8)
		if symbol < 16 {
			all[i] = symbol
			i++
			continue
		}
		var before uint8
		bits, least := uint(2), uint32(3)
		switch symbol {
		case 16:
			if i == 0 {
				return broken("a length that repeats none")
			}
			before = all[i-1]
		case 17:
			bits = 3
		case 18:
			bits, least = 7, 11
		}
		n, err := d.take(bits)
		if err != nil {
			return err
		}
		n += least
		if int(n) > len(all)-i {
			return broken("more lengths than codes")
		}
		for range n {
			all[i] = before
			i++
		}
	}
	return nil
}

// noCode is the error for bits that are no code: it may be that they have not come.
func (d *decoder) noCode() error {
	if d.nb < maxCode {
		return d.short()
	}
	return broken("bits that are no code")
}

// The lengths and distances that symbols begin with, and how many bits follow (section 3.2.5).
var (
	lengthBase   = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits   = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBase = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distanceBits = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// fixed returns the codes of blocks that bring none (section 3.2.6).
var fixed = sync.OnceValue(func() *[2]huffman {
	var f [2]huffman
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	f[0].build(lengths[:])
	for i := range 32 {
		lengths[i] = 5
	}
	f[1].build(lengths[:32])
	return &f
})

// codes decompresses the codes of a block to its end. One turn takes at most 48 bits: 15 and 5 for a length,
// 15 and 13 for a distance.
func (d *decoder) codes(literals, distances *huffman) error {
	for {
		if len(d.out)-d.at < maxMatch {
			if err := d.flush(); err != nil {
				return err
			}
		}
		if d.nb < 48 {
			d.refill()
		}
		e := literals.find(d.word)
		n := uint(e & lengthMask)
		if n == 0 {
			return d.noCode()
		}
		if n > d.nb {
			return d.short()
		}
		d.word >>= n
		d.nb -= n
		symbol := e >> 8
		if symbol < endOfBlock {
			d.out[d.at] = byte(symbol)
			d.at++
			continue
		}
		if symbol == endOfBlock {
			return nil
		}
		if err := d.match(symbol-endOfBlock-1, distances); err != nil {
			return err
		}
	}
}

// match copies what came before.
func (d *decoder) match(symbol uint32, distances *huffman) error {
	if symbol >= uint32(len(lengthBase)) {
		return broken("an unknown length")
	}
	word, used := d.word, uint(lengthBits[symbol])
	length := int(lengthBase[symbol]) + int(word&(1<<used-1))
	word >>= used
	e := distances.find(word)
	n := uint(e & lengthMask)
	if n == 0 {
		return d.noCode()
	}
	word >>= n
	if e>>8 >= uint32(len(distanceBase)) {
		return broken("an unknown distance")
	}
	bits := uint(distanceBits[e>>8])
	distance := int(distanceBase[e>>8]) + int(word&(1<<bits-1))
	if used += n + bits; used > d.nb {
		return d.short()
	}
	d.word >>= used
	d.nb -= used
	from := d.at - distance
	if from < d.low {
		return broken("a distance to before the beginning")
	}
	// The copy may reach what it writes itself.
	for length > 0 {
		m := copy(d.out[d.at:d.at+min(length, distance)], d.out[from:d.at])
		d.at, from, length = d.at+m, from+m, length-m
	}
	return nil
}
