package main

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// pairs is a flag of key=value pairs, and the same as an object of daemon.json.
type pairs map[string]string

func (p pairs) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return &fault.Field{Field: "option", Given: s, Expected: "key=value"}
	}
	p[key] = value
	return nil
}

func (p pairs) String() string { return "" }
func (p pairs) Type() string   { return "map" }

// number is a flag of a number that need not be given.
type number struct{ to **int }

func (n number) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil {
		return &fault.Field{Field: "number", Given: text, Expected: "a whole number"}
	}
	*n.to = &v
	return nil
}

func (n number) String() string { return "" }
func (n number) Type() string   { return "int" }

// size is a flag of bytes, and a number or text of daemon.json.
type size int64

func (s *size) Set(text string) error {
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		return &fault.Field{Field: "size", Given: text, Expected: "a size such as 64m"}
	}
	*s = size(n)
	return nil
}

func (s *size) String() string { return "" }
func (s *size) Type() string   { return "bytes" }

// UnmarshalJSON reads 67108864 or "64M".
func (s *size) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		text = string(data)
	}
	return s.Set(text)
}

// ulimits is a flag of limits, and an object by name of daemon.json.
type ulimits map[string]wire.Ulimit

func (u ulimits) Set(s string) error {
	limit, err := units.ParseUlimit(s)
	if err != nil {
		return &fault.Field{Field: "ulimit", Given: s, Expected: "name=soft[:hard], such as nofile=1024:2048"}
	}
	u[limit.Name] = wire.Ulimit{Name: limit.Name, Soft: limit.Soft, Hard: limit.Hard}
	return nil
}

func (u ulimits) String() string { return "" }
func (u ulimits) Type() string   { return "ulimit" }
