// Package stdlib is the standard library of scripts: what load("@std//web.star", "static_site") finds.
// Every function in it has a docstring; the tests of starlark/env run the examples.
package stdlib

import "embed"

// FS has the files by name.
//
//go:embed *.star
var FS embed.FS
