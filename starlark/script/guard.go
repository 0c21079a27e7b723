package script

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Unknown is a value that stands for something not known while a script is evaluated: the address of
// a container that does not run yet, or a secret. NotKnown says so, with who will know it.
//
// The language lets any value be compared, tested for truth and formatted, and a placeholder would
// then silently be unequal, true, or part of a name. So guard rewrites each file before it is
// compiled, and wraps the operands of ==, !=, in, %, and, or, not, if and the arguments of format in
// a call of knownName, which answers with its operand or fails. Operations that ask the operand
// itself (+, <, a dict's key, len) need no guard: Unknown's type refuses them.
type Unknown interface {
	starlark.Value
	NotKnown() error
}

// The guards' names are no identifiers, so no script can say or redefine them.
const (
	knownName  = "known?"
	timesName  = "times?"
	methodName = "method?"
)

// The most that one operation may make. Steps do not see how much work a builtin does.
const (
	maxString = 64 << 20
	maxList   = 4 << 20
	maxBits   = 1 << 16
)

func guards() starlark.StringDict {
	return starlark.StringDict{
		knownName:  starlark.NewBuiltin(knownName, known),
		timesName:  starlark.NewBuiltin("*", times),
		methodName: starlark.NewBuiltin(methodName, method),
		"str":      knownFirst("str"), "repr": knownFirst("repr"), "bool": knownFirst("bool"),
		"any": knownFirst("any"), "all": knownFirst("all"),
	}
}

// guard rewrites a parsed file.
func guard(tree *syntax.File) {
	g := guarder{}
	syntax.Walk(tree, func(n syntax.Node) bool {
		g.node(n)
		return true
	})
}

type guarder struct{}

func (g guarder) node(n syntax.Node) {
	switch n := n.(type) {
	case *syntax.IfStmt:
		n.Cond = g.known(n.Cond)
	case *syntax.CondExpr:
		n.Cond, n.True, n.False = g.known(n.Cond), g.product(n.True), g.product(n.False)
	case *syntax.IfClause:
		n.Cond = g.known(n.Cond)
	case *syntax.UnaryExpr:
		if n.Op == syntax.NOT {
			n.X = g.known(n.X)
		}
	case *syntax.BinaryExpr:
		g.binary(n)
	case *syntax.AssignStmt:
		g.assign(n)
	case *syntax.CallExpr:
		g.call(n)
	case *syntax.ReturnStmt:
		if n.Result != nil {
			n.Result = g.product(n.Result)
		}
	case *syntax.ExprStmt:
		n.X = g.product(n.X)
	case *syntax.ParenExpr:
		n.X = g.product(n.X)
	case *syntax.ListExpr:
		g.products(n.List)
	case *syntax.TupleExpr:
		g.products(n.List)
	case *syntax.DictEntry:
		n.Key, n.Value = g.product(n.Key), g.product(n.Value)
	case *syntax.IndexExpr:
		n.X, n.Y = g.product(n.X), g.product(n.Y)
	case *syntax.DotExpr:
		n.X = g.product(n.X)
	case *syntax.Comprehension:
		n.Body = g.product(n.Body)
	case *syntax.ForStmt:
		n.X = g.product(n.X)
	case *syntax.ForClause:
		n.X = g.product(n.X)
	case *syntax.LambdaExpr:
		n.Body = g.product(n.Body)
	case *syntax.SliceExpr:
		n.X = g.product(n.X)
	}
}

// assign guards x %= y, and turns x *= y into x = x * y where x is a name.
func (g guarder) assign(n *syntax.AssignStmt) {
	id, name := n.LHS.(*syntax.Ident)
	switch {
	case n.Op == syntax.PERCENT_EQ:
		n.RHS = g.known(n.RHS)
	case n.Op == syntax.STAR_EQ && name:
		x := &syntax.Ident{NamePos: id.NamePos, Name: id.Name}
		n.RHS = &syntax.BinaryExpr{X: x, OpPos: n.OpPos, Op: syntax.STAR, Y: n.RHS}
		n.Op = syntax.EQ
	}
	n.RHS = g.product(n.RHS)
}

func (g guarder) binary(n *syntax.BinaryExpr) {
	switch n.Op {
	case syntax.EQL, syntax.NEQ, syntax.IN, syntax.NOT_IN:
		n.X, n.Y = g.known(n.X), g.known(n.Y)
	case syntax.AND, syntax.OR:
		n.X = g.known(n.X)
	case syntax.PERCENT:
		n.Y = g.known(n.Y)
	}
	n.X, n.Y = g.product(n.X), g.product(n.Y)
}

// known wraps an expression that may be unknown.
func (g guarder) known(x syntax.Expr) syntax.Expr {
	switch x := x.(type) {
	case *syntax.Literal:
		return x
	case *syntax.UnaryExpr:
		if x.Op == syntax.NOT {
			return x // a bool; its operand is guarded
		}
	case *syntax.BinaryExpr:
		switch x.Op {
		case syntax.EQL, syntax.NEQ, syntax.IN, syntax.NOT_IN, syntax.LT, syntax.LE, syntax.GT, syntax.GE:
			return x
		}
	}
	return wrap(knownName, x)
}

// wrap makes NAME(x), at x's own place.
func wrap(name string, args ...syntax.Expr) *syntax.CallExpr {
	start, end := args[0].Span()
	return &syntax.CallExpr{Fn: &syntax.Ident{NamePos: start, Name: name}, Lparen: start, Args: args, Rparen: end}
}

func (g guarder) products(list []syntax.Expr) {
	for i := range list {
		list[i] = g.product(list[i])
	}
}

// product replaces x * y, whose cost the interpreter's steps do not see, by a call that bounds it.
func (g guarder) product(x syntax.Expr) syntax.Expr {
	b, ok := x.(*syntax.BinaryExpr)
	if !ok || b.Op != syntax.STAR {
		return x
	}
	c := wrap(timesName, b.X, b.Y)
	c.Lparen = b.OpPos
	return c
}

// call guards the arguments of a call, and the methods of strings that format or grow.
func (g guarder) call(c *syntax.CallExpr) {
	for i, a := range c.Args {
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			b.Y = g.product(b.Y)
			continue
		}
		c.Args[i] = g.product(a)
	}
	dot, ok := c.Fn.(*syntax.DotExpr)
	if !ok {
		return
	}
	switch dot.Name.Name {
	case "format", "replace", "join":
		name := &syntax.Literal{Token: syntax.STRING, TokenPos: dot.NamePos, Raw: fmt.Sprintf("%q", dot.Name.Name), Value: dot.Name.Name}
		c.Fn = &syntax.Ident{NamePos: dot.NamePos, Name: methodName}
		c.Args = append([]syntax.Expr{dot.X, name}, c.Args...)
	}
}

// known(x) is x, unless x is or holds an unknown.
func known(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	if err := notKnown(args[0], 4); err != nil {
		return nil, err
	}
	return args[0], nil
}

// notKnown looks for an unknown in a value, and in the lists, tuples and dicts that it holds.
func notKnown(v starlark.Value, depth int) error {
	if depth == 0 {
		return nil
	}
	switch v := v.(type) {
	case Unknown:
		return v.NotKnown()
	case *starlark.List:
		for i := range v.Len() {
			if err := notKnown(v.Index(i), depth-1); err != nil {
				return err
			}
		}
	case starlark.Tuple:
		for _, e := range v {
			if err := notKnown(e, depth-1); err != nil {
				return err
			}
		}
	case *starlark.Dict:
		for _, item := range v.Items() {
			if err := notKnown(item[1], depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// knownFirst is a builtin of the language that does not take an unknown.
func knownFirst(name string) *starlark.Builtin {
	original := starlark.Universe[name].(*starlark.Builtin)
	return starlark.NewBuiltin(name, func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		for _, a := range args {
			if err := notKnown(a, 4); err != nil {
				return nil, err
			}
		}
		return original.CallInternal(thread, args, kwargs)
	})
}

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

// method calls x.format, x.replace or x.join: what it formats must be known, what it makes bounded.
func method(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	x, name := args[0], string(args[1].(starlark.String))
	rest := args[2:]
	text, isString := starlark.AsString(x)
	if isString {
		if err := bounded(text, name, rest, kwargs); err != nil {
			return nil, err
		}
	}
	fn, err := attr(x, name)
	if err != nil {
		return nil, err
	}
	return starlark.Call(thread, fn, rest, kwargs)
}

func attr(x starlark.Value, name string) (starlark.Value, error) {
	if has, ok := x.(starlark.HasAttrs); ok {
		v, err := has.Attr(name)
		if v != nil || err != nil {
			return v, err
		}
	}
	return nil, fmt.Errorf("%s has no .%s field or method", x.Type(), name)
}

func bounded(text, name string, args starlark.Tuple, kwargs []starlark.Tuple) error {
	for _, a := range args {
		if err := notKnown(a, 4); err != nil {
			return err
		}
	}
	for _, kw := range kwargs {
		if err := notKnown(kw[1], 4); err != nil {
			return err
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
