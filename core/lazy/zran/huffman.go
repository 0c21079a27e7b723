package zran

import "math/bits"

// maxCode is how many bits a code has at most (RFC 1951, section 3.2.7), and primary how many are looked up
// at once; longer codes take a second look.
const (
	maxCode = 15
	primary = 10
)

// An entry of a table is the symbol in the bits from 8 up, and the length of its code in the lowest 4; 0 is no
// code. A link has bit 7, and where the second table begins instead of the symbol.
const (
	lengthMask = 15
	link       = 1 << 7
)

// huffman is a table of codes.
type huffman struct {
	table []uint32
	rest  uint // bits of the second look
}

// build makes the table for the lengths of the codes of symbols 0, 1, ... (RFC 1951, section 3.2.2). It reports
// whether there is such a code: a set of lengths that leaves codes without a symbol is none, but for no
// code at all and for a single one of one bit, which compressors use where no distance, or one, occurs.
func (h *huffman) build(lengths []uint8) bool {
	var count [maxCode + 1]int
	longest := uint(0)
	for _, n := range lengths {
		if n > 0 {
			count[n]++
			longest = max(longest, uint(n))
		}
	}
	var next [maxCode + 2]int
	code := 0
	for n := uint(1); n <= longest; n++ {
		code <<= 1
		next[n] = code
		code += count[n]
		if code > 1<<n {
			return false
		}
	}
	if longest > 0 && code != 1<<longest && (longest != 1 || code != 1) {
		return false
	}
	h.begin(longest)
	for symbol, n := range lengths {
		if n > 0 {
			h.put(uint(n), next[n], uint32(symbol)<<8|uint32(n))
			next[n]++
		}
	}
	return true
}

// begin empties the table.
func (h *huffman) begin(longest uint) {
	if cap(h.table) < 1<<primary {
		h.table = make([]uint32, 1<<primary, 3<<primary)
	}
	h.table = h.table[:1<<primary]
	clear(h.table)
	h.rest = 0
	if longest > primary {
		h.rest = longest - primary
	}
}

// put enters the code of n bits at all places that begin with it: codes come with their highest bit first, into
// words that are filled from the lowest.
func (h *huffman) put(n uint, code int, e uint32) {
	at := uint(bits.Reverse16(uint16(code)) >> (16 - n))
	if n <= primary {
		for ; at < 1<<primary; at += 1 << n {
			h.table[at] = e
		}
		return
	}
	first := at & (1<<primary - 1)
	if h.table[first] == 0 {
		h.table[first] = uint32(len(h.table))<<8 | link
		h.table = append(h.table, make([]uint32, 1<<h.rest)...)
	}
	second := h.table[h.table[first]>>8:]
	for at >>= primary; at < 1<<h.rest; at += 1 << (n - primary) {
		second[at] = e
	}
}

// find returns the entry for the code at the lowest bits of a word.
func (h *huffman) find(word uint64) uint32 {
	e := h.table[word&(1<<primary-1)]
	if e&link != 0 {
		e = h.table[uint64(e>>8)+word>>primary&(1<<h.rest-1)]
	}
	return e
}
