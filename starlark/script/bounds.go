package script

import (
	"fmt"
	"strings"

	starjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// The most that one operation may make. Steps do not see how much work a builtin does, and nothing
// can end one that has begun.
const (
	maxString = 16 << 20
	maxList   = 4 << 20
	maxRange  = 10_000_000
	maxBits   = 1 << 16
	maxDigits = 20_000 // of a number, about maxBits
)

// times(x, y) is x * y within bounds.
func times(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	x, y := args[0], args[1]
	xi, xInt := x.(starlark.Int)
	yi, yInt := y.(starlark.Int)
	switch {
	case xInt && yInt:
		if xi.BigInt().BitLen()+yi.BigInt().BitLen() > maxBits {
			return nil, fmt.Errorf("a number of more than %d bits is too large", maxBits)
		}
	case xInt:
		if err := repeats(y, xi); err != nil {
			return nil, err
		}
	case yInt:
		if err := repeats(x, yi); err != nil {
			return nil, err
		}
	}
	return starlark.Binary(syntax.STAR, x, y)
}

// shift(x, y) is x << y within bounds.
func shift(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	x, xInt := args[0].(starlark.Int)
	y, yInt := args[1].(starlark.Int)
	if xInt && yInt {
		if n, ok := y.Int64(); ok && n > 0 && int64(x.BigInt().BitLen())+n > maxBits {
			return nil, fmt.Errorf("a number of more than %d bits is too large", maxBits)
		}
	}
	return starlark.Binary(syntax.LTLT, args[0], args[1])
}

// shortRange is range with a bound: list(range(n)) is one step, however large n is.
func shortRange() *starlark.Builtin {
	original := starlark.Universe["range"].(*starlark.Builtin)
	return starlark.NewBuiltin("range", func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		v, err := original.CallInternal(thread, args, kwargs)
		if n := starlark.Len(v); err == nil && n > maxRange {
			return nil, fmt.Errorf("range: expected at most %d numbers, got %d", maxRange, n)
		}
		return v, err
	})
}

// shortInt is int with a bound on the digits that it reads.
func shortInt() *starlark.Builtin {
	original := starlark.Universe["int"].(*starlark.Builtin)
	return starlark.NewBuiltin("int", func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if len(args) > 0 {
			if s, ok := starlark.AsString(args[0]); ok && len(s) > maxDigits {
				return nil, fmt.Errorf("int: expected at most %d digits, got %d", maxDigits, len(s))
			}
		}
		return original.CallInternal(thread, args, kwargs)
	})
}

// The most that a value may hold, one in another and altogether, to be made a string of. Lists that
// are held twice count twice, as they are written twice.
const (
	maxDepth  = 500
	maxValues = 2_000_000
)

// showable refuses a value whose text would take for ever.
func showable(v starlark.Value) error {
	left := maxValues
	return walk(v, maxDepth, &left)
}

func walk(v starlark.Value, depth int, left *int) error {
	*left--
	if depth == 0 || *left < 0 {
		return fmt.Errorf("a value with more than %d levels or %d parts is too large to be shown", maxDepth, maxValues)
	}
	each := func(list ...starlark.Value) error {
		for _, e := range list {
			if err := walk(e, depth-1, left); err != nil {
				return err
			}
		}
		return nil
	}
	switch v := v.(type) {
	case starlark.Tuple:
		return each(v...)
	case *starlark.List:
		for i := range v.Len() {
			if err := each(v.Index(i)); err != nil {
				return err
			}
		}
	case *starlark.Dict:
		for _, item := range v.Items() {
			if err := each(item...); err != nil {
				return err
			}
		}
	case *starlarkstruct.Struct:
		for _, name := range v.AttrNames() {
			if field, err := v.Attr(name); err == nil {
				if err := each(field); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// showFirst is a builtin of the language that formats all its arguments.
func showFirst(name string) *starlark.Builtin {
	original := starlark.Universe[name].(*starlark.Builtin)
	return starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		for _, a := range args {
			if err := showable(a); err != nil {
				return nil, err
			}
		}
		return original.CallInternal(thread, args, kwargs)
	})
}

// boundedJSON is the module json, whose encoder and decoder recurse.
func boundedJSON() starlark.Value {
	members := starlark.StringDict{}
	for name, v := range starjson.Module.Members {
		members[name] = v
	}
	decode := starjson.Module.Members["decode"].(*starlark.Builtin)
	members["decode"] = starlark.NewBuiltin("json.decode", func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if len(args) > 0 {
			if s, ok := starlark.AsString(args[0]); ok && tooDeep(s) {
				return nil, fmt.Errorf("json.decode: expected at most %d brackets within each other", maxNesting)
			}
		}
		return decode.CallInternal(thread, args, kwargs)
	})
	encode := starjson.Module.Members["encode"].(*starlark.Builtin)
	members["encode"] = starlark.NewBuiltin("json.encode", func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		for _, a := range args {
			if err := showable(a); err != nil {
				return nil, err
			}
		}
		return encode.CallInternal(thread, args, kwargs)
	})
	return &starlarkstruct.Module{Name: "json", Members: members}
}

// tooDeep counts brackets, also those in strings: that refuses a little too much.
func tooDeep(s string) bool {
	depth := 0
	for _, c := range []byte(s) {
		switch c {
		case '[', '{':
			if depth++; depth > maxNesting {
				return true
			}
		case ']', '}':
			depth = max(0, depth-1)
		}
	}
	return false
}

func repeats(v starlark.Value, n starlark.Int) error {
	length := starlark.Len(v)
	count, ok := n.Int64()
	if length <= 0 {
		return nil
	}
	limit := int64(maxList)
	switch v.(type) {
	case starlark.String, starlark.Bytes:
		limit = maxString
	}
	if !ok && n.Sign() > 0 || count > limit/int64(length) {
		return fmt.Errorf("%s * %s is too large: expected at most %d elements", v.Type(), n, limit)
	}
	return nil
}

func bounded(text, name string, args starlark.Tuple, kwargs []starlark.Tuple) error {
	for _, kw := range kwargs {
		args = append(args[:len(args):len(args)], kw[1])
	}
	for _, a := range args {
		if err := notKnown(a, 4); err != nil {
			return err
		}
		if name == "format" {
			if err := showable(a); err != nil {
				return err
			}
		}
	}
	var size int
	switch name {
	case "replace":
		if len(args) < 2 {
			return nil
		}
		old, _ := starlark.AsString(args[0])
		with, _ := starlark.AsString(args[1])
		size = strings.Count(text, old) * max(0, len(with)-len(old))
	case "join":
		if len(args) == 0 {
			return nil
		}
		list, ok := args[0].(starlark.Indexable)
		for i := 0; ok && i < list.Len() && size <= maxString; i++ {
			s, _ := starlark.AsString(list.Index(i))
			size += len(s) + len(text)
		}
	case "format":
		longest := 0
		for _, a := range args {
			s, _ := starlark.AsString(a)
			longest = max(longest, len(s))
		}
		size = strings.Count(text, "{") * longest
	}
	if size > maxString {
		return fmt.Errorf("the result of %s is too large: expected at most %d bytes", name, maxString)
	}
	return nil
}
