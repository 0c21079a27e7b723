// Package stdlib is the standard library of scripts: what load("@std//web.star", "nginx") finds.
// Every function in it has a docstring whose examples are run by the tests.
package stdlib

import "embed"

// FS has the files by name.
//
//go:embed *.star
var FS embed.FS
