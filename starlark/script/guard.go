package script

import (
	"fmt"

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
	shiftName  = "shift?"
	shownName  = "shown?"
	methodName = "method?"
)

func guards() starlark.StringDict {
	return starlark.StringDict{
		knownName:  starlark.NewBuiltin(knownName, known),
		timesName:  starlark.NewBuiltin("*", times),
		shiftName:  starlark.NewBuiltin("<<", shift),
		methodName: starlark.NewBuiltin(methodName, method),
		shownName:  starlark.NewBuiltin(shownName, shown),
		"str":      knownFirst("str"), "repr": knownFirst("repr"), "bool": knownFirst("bool"),
		"print": showFirst("print"), "fail": showFirst("fail"),
		"any": knownFirst("any"), "all": knownFirst("all"),
		"range": shortRange(), "int": shortInt(), "json": boundedJSON(),
	}
}

// guard rewrites a parsed file. The few sentences that it cannot make safe are errors.
func guard(tree *syntax.File) error {
	g := &guarder{}
	syntax.Walk(tree, func(n syntax.Node) bool {
		g.node(n)
		return true
	})
	return g.err
}

type guarder struct{ err error }

func (g *guarder) node(n syntax.Node) {
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

// assign guards x %= y, and turns x *= y into x = x * y, and x <<= y likewise.
func (g *guarder) assign(n *syntax.AssignStmt) {
	switch n.Op {
	case syntax.PERCENT_EQ:
		n.RHS = wrap(shownName, n.RHS)
	case syntax.STAR_EQ, syntax.LTLT_EQ:
		op := map[syntax.Token]syntax.Token{syntax.STAR_EQ: syntax.STAR, syntax.LTLT_EQ: syntax.LTLT}[n.Op]
		x := again(n.LHS)
		if x == nil {
			if g.err == nil {
				g.err = syntax.Error{Pos: n.OpPos, Msg: fmt.Sprintf("expected a name, or one with a name or number in brackets, on the left of %s: write x = x %s y", n.Op, op)}
			}
			return
		}
		n.RHS = &syntax.BinaryExpr{X: x, OpPos: n.OpPos, Op: op, Y: n.RHS}
		n.Op = syntax.EQ
	}
	n.RHS = g.product(n.RHS)
}

// again is a copy of an expression that can be evaluated twice without a difference, or nil.
func again(x syntax.Expr) syntax.Expr {
	switch x := x.(type) {
	case *syntax.Ident:
		return &syntax.Ident{NamePos: x.NamePos, Name: x.Name}
	case *syntax.Literal:
		return x
	case *syntax.ParenExpr:
		return again(x.X)
	case *syntax.DotExpr:
		if of := again(x.X); of != nil {
			return &syntax.DotExpr{X: of, Dot: x.Dot, NamePos: x.NamePos, Name: &syntax.Ident{NamePos: x.NamePos, Name: x.Name.Name}}
		}
	case *syntax.IndexExpr:
		of, index := again(x.X), again(x.Y)
		if of != nil && index != nil {
			return &syntax.IndexExpr{X: of, Lbrack: x.Lbrack, Y: index, Rbrack: x.Rbrack}
		}
	}
	return nil
}

func (g *guarder) binary(n *syntax.BinaryExpr) {
	switch n.Op {
	case syntax.EQL, syntax.NEQ, syntax.IN, syntax.NOT_IN:
		n.X, n.Y = g.known(n.X), g.known(n.Y)
	case syntax.AND, syntax.OR:
		n.X = g.known(n.X)
	case syntax.PERCENT:
		if _, number := n.Y.(*syntax.Literal); !number {
			n.Y = wrap(shownName, n.Y)
		}
	}
	n.X, n.Y = g.product(n.X), g.product(n.Y)
}

// known wraps an expression that may be unknown.
func (g *guarder) known(x syntax.Expr) syntax.Expr {
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

func (g *guarder) products(list []syntax.Expr) {
	for i := range list {
		list[i] = g.product(list[i])
	}
}

// product replaces x * y and x << y, whose cost the interpreter's steps do not see, by a call that
// bounds it.
func (g *guarder) product(x syntax.Expr) syntax.Expr {
	b, ok := x.(*syntax.BinaryExpr)
	if !ok || b.Op != syntax.STAR && b.Op != syntax.LTLT {
		return x
	}
	name := timesName
	if b.Op == syntax.LTLT {
		name = shiftName
	}
	c := wrap(name, b.X, b.Y)
	c.Lparen = b.OpPos
	return c
}

// call guards the arguments of a call, and the methods of strings that format or grow.
func (g *guarder) call(c *syntax.CallExpr) {
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
		name := &syntax.Literal{Token: syntax.STRING, TokenPos: dot.Name.NamePos, Raw: fmt.Sprintf("%q", dot.Name.Name), Value: dot.Name.Name}
		c.Fn = &syntax.Ident{NamePos: dot.Name.NamePos, Name: methodName}
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

// shown(x) is x, unless x is or holds an unknown, or is more than can be formatted.
func shown(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	if err := notKnown(args[0], 4); err != nil {
		return nil, err
	}
	return args[0], showable(args[0])
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
			if name == "str" || name == "repr" {
				if err := showable(a); err != nil {
					return nil, err
				}
			}
		}
		return original.CallInternal(thread, args, kwargs)
	})
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
