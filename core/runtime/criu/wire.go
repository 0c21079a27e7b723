package criu

import (
	"encoding/binary"
	"fmt"
)

// The messages of CRIU's rpc.proto in the wire format of protocol buffers, of which a request needs
// numbers and byte strings alone. The generated code and its library would be linked into the program
// that is the init of every container, and cost each start their initialisation.

// Wire types.
const (
	wireNumber = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// message is one that is being written.
type message []byte

func (m *message) number(field int, value uint64) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|wireNumber)
	*m = binary.AppendUvarint(*m, value)
}

// signed writes an int32, which the format sign-extends.
func (m *message) signed(field, value int) { m.number(field, uint64(int64(value))) } //nolint:gosec // see above

// yes writes a bool that is true. All of rpc.proto are false when they are left out.
func (m *message) yes(field int, value bool) {
	if value {
		m.number(field, 1)
	}
}

func (m *message) bytes(field int, value []byte) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|wireBytes)
	*m = binary.AppendUvarint(*m, uint64(len(value)))
	*m = append(*m, value...)
}

// text writes a string that is not empty.
func (m *message) text(field int, value string) {
	if value != "" {
		m.bytes(field, []byte(value))
	}
}

// fields calls fn for every field of a message: with a number, or with bytes, which are not nil then.
func fields(data []byte, fn func(field int, number uint64, bytes []byte) error) error {
	bad := fmt.Errorf("the answer is no message of CRIU's: %d bytes", len(data))
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29 {
			return bad
		}
		data = data[n:]
		var number uint64
		var bytes []byte
		switch tag & 7 {
		case wireNumber:
			if number, n = binary.Uvarint(data); n <= 0 {
				return bad
			}
			data = data[n:]
		case wireBytes:
			size, n := binary.Uvarint(data)
			if n <= 0 || size > uint64(len(data)-n) {
				return bad
			}
			bytes, data = data[n:n+int(size):n+int(size)], data[n+int(size):] //nolint:gosec // not above len(data)
		case wire64, wire32:
			size := 8
			if tag&7 == wire32 {
				size = 4
			}
			if len(data) < size {
				return bad
			}
			data = data[size:]
			continue
		default:
			return bad
		}
		if err := fn(int(tag>>3), number, bytes); err != nil { //nolint:gosec // bounded above
			return err
		}
	}
	return nil
}
