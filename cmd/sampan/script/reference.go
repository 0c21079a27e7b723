package script

import (
	"fmt"
	"io"

	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/env"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/probe"
	"github.com/sampan-project/sampan/starlark/recipe"
	"github.com/sampan-project/sampan/starlark/script"
	"github.com/sampan-project/sampan/starlark/task"
)

// chapter is a part of the reference: what one kind of script sees.
type chapter struct {
	title, text string
	funcs       []arg.Func
}

// chapters are made from the declarations that also unpack the arguments, so they cannot differ.
func chapters() []chapter {
	return []chapter{
		{"Every script", "Inputs are the only way in which a script learns of the world while it is evaluated.",
			append(append(script.InputFuncs(), script.ArgKind("string"), script.ArgKind("int"), script.ArgKind("bool")), probe.Funcs()...)},
		{"env.star", "An environment: `sampan plan`, `apply`, `destroy` and `graph`.",
			append(env.Funcs(), graph.VolumeAt(nil), graph.MapFunc(nil))},
		{"build.star", "Images: `sampan build` and, in an env.star, `build()`. A function is a target; it gets `ctx`, and returns a filesystem.",
			append(append(recipe.Funcs(), recipe.FilesFuncs()...), recipe.ContextFuncs()...)},
		{"Scripts and tasks", "Effects: `sampan script FILE` calls `main(ctx)`, or the task that is named.",
			append(task.Funcs(), task.BoxFuncs()...)},
	}
}

// printReference writes all that scripts can say, as Markdown.
func printReference(w io.Writer) {
	fmt.Fprint(w, "# Sampan's Starlark\n\nMade by `sampan script --reference`.\n")
	for _, c := range chapters() {
		fmt.Fprintf(w, "\n## %s\n\n%s\n", c.title, c.text)
		for _, f := range c.funcs {
			fmt.Fprintf(w, "\n%s", f.Markdown())
		}
	}
}
