package wire

import (
	"encoding/json"
	"strconv"
	"strings"
)

// The brief form of a list of containers has of each what a table shows, always in this order:
//
//	{"Id":"..","Names":[".."],"Image":"..","ImageID":"..","Command":"..","Created":1,"Ports":[..],"State":"..","Status":".."}
//
// with "SizeRw":1,"SizeRootFs":1 behind it where sizes were asked for. It is a ContainerSummary in JSON like
// any other; that it has a fixed order lets both sides do without package json, which takes most of the time of a
// list of a thousand.

// AppendBrief appends the brief form of a list to b.
func AppendBrief(b []byte, list []ContainerSummary) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = list[i].appendBrief(b)
	}
	return append(b, ']')
}

func (s *ContainerSummary) appendBrief(b []byte) []byte {
	b = appendText(append(b, `{"Id":`...), s.ID)
	b = append(b, `,"Names":[`...)
	for i, name := range s.Names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
	}
	b = appendText(append(b, `],"Image":`...), s.Image)
	b = appendText(append(b, `,"ImageID":`...), s.ImageID)
	b = appendText(append(b, `,"Command":`...), s.Command)
	b = strconv.AppendInt(append(b, `,"Created":`...), s.Created, 10)
	b = append(b, `,"Ports":[`...)
	for i, p := range s.Ports {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"IP":`...), p.IP)
		b = strconv.AppendUint(append(b, `,"PrivatePort":`...), uint64(p.PrivatePort), 10)
		b = strconv.AppendUint(append(b, `,"PublicPort":`...), uint64(p.PublicPort), 10)
		b = append(appendText(append(b, `,"Type":`...), p.Type), '}')
	}
	b = appendText(append(b, `],"State":`...), s.State)
	b = appendText(append(b, `,"Status":`...), s.Status)
	if s.SizeRw != 0 || s.SizeRootFs != 0 {
		b = strconv.AppendInt(append(b, `,"SizeRw":`...), s.SizeRw, 10)
		b = strconv.AppendInt(append(b, `,"SizeRootFs":`...), s.SizeRootFs, 10)
	}
	return append(b, '}')
}

// plain reports whether a character stands for itself in JSON's text.
func plain(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }

func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if !plain(s[i]) {
			text, _ := json.Marshal(s) //nolint:errcheck // there is no text that it refuses
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// ParseSummaries reads a list of containers in JSON: quickly in the brief form, and otherwise, as from another
// daemon, as package json does.
func ParseSummaries(text []byte) ([]ContainerSummary, error) {
	if list, ok := parseBrief(string(text)); ok {
		return list, nil
	}
	var list []ContainerSummary
	err := json.Unmarshal(text, &list)
	return list, err
}

// brief is the rest of a text in the brief form. What is not so fails, and what follows then does nothing.
type brief struct {
	rest   string
	failed bool
}

func parseBrief(text string) ([]ContainerSummary, bool) {
	in := brief{rest: strings.TrimRight(text, "\n")}
	list := []ContainerSummary{}
	in.each(func() {
		list = append(list, ContainerSummary{})
		in.summary(&list[len(list)-1])
	})
	return list, !in.failed && in.rest == ""
}

func (in *brief) summary(s *ContainerSummary) {
	s.ID = in.text(`{"Id":`)
	in.expect(`,"Names":`)
	in.each(func() { s.Names = append(s.Names, in.text("")) })
	s.Image = in.text(`,"Image":`)
	s.ImageID = in.text(`,"ImageID":`)
	s.Command = in.text(`,"Command":`)
	s.Created = in.number(`,"Created":`)
	in.expect(`,"Ports":`)
	in.each(func() {
		p := Port{IP: in.text(`{"IP":`), PrivatePort: in.port(`,"PrivatePort":`), PublicPort: in.port(`,"PublicPort":`), Type: in.text(`,"Type":`)}
		s.Ports = append(s.Ports, p)
		in.expect("}")
	})
	s.State = in.text(`,"State":`)
	s.Status = in.text(`,"Status":`)
	if strings.HasPrefix(in.rest, `,"SizeRw":`) {
		s.SizeRw, s.SizeRootFs = in.number(`,"SizeRw":`), in.number(`,"SizeRootFs":`)
	}
	in.expect("}")
}

func (in *brief) expect(word string) {
	rest, ok := strings.CutPrefix(in.rest, word)
	in.rest, in.failed = rest, in.failed || !ok
}

// each reads an array, whose elements element reads.
func (in *brief) each(element func()) {
	in.expect("[")
	if strings.HasPrefix(in.rest, "]") {
		in.expect("]")
		return
	}
	for !in.failed {
		element()
		if !strings.HasPrefix(in.rest, ",") {
			break
		}
		in.expect(",")
	}
	in.expect("]")
}

// text reads a text behind a word. It shares the memory of the whole.
func (in *brief) text(word string) string {
	in.expect(word)
	in.expect(`"`)
	if in.failed {
		return ""
	}
	for i := range len(in.rest) {
		switch c := in.rest[i]; {
		case c == '"':
			s := in.rest[:i]
			in.rest = in.rest[i+1:]
			return s
		case !plain(c):
			return in.escaped()
		}
	}
	in.failed = true
	return ""
}

// escaped reads a text in which not everything stands for itself.
func (in *brief) escaped() string {
	end := 0
	for end < len(in.rest) && in.rest[end] != '"' {
		if in.rest[end] == '\\' {
			end++
		}
		end++
	}
	var s string
	if end >= len(in.rest) || json.Unmarshal([]byte(`"`+in.rest[:end+1]), &s) != nil {
		in.failed = true
		return ""
	}
	in.rest = in.rest[end+1:]
	return s
}

func (in *brief) digits(word string) string {
	in.expect(word)
	n := 0
	for n < len(in.rest) && (in.rest[n] >= '0' && in.rest[n] <= '9' || n == 0 && in.rest[n] == '-') {
		n++
	}
	digits := in.rest[:n]
	in.rest = in.rest[n:]
	return digits
}

func (in *brief) number(word string) int64 {
	n, err := strconv.ParseInt(in.digits(word), 10, 64)
	in.failed = in.failed || err != nil
	return n
}

func (in *brief) port(word string) uint16 {
	n, err := strconv.ParseUint(in.digits(word), 10, 16)
	in.failed = in.failed || err != nil
	return uint16(n)
}
