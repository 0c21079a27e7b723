package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// atOnce bounds the requests of one command that are on their way together.
const atOnce = 50

// Each does something for every argument, many at once, and prints each result that is not "" in the
// order of the arguments. One that fails does not keep the others from being done.
func Each(out io.Writer, args []string, do func(arg string) (string, error)) error {
	type result struct {
		text string
		err  error
	}
	results := make([]chan result, len(args))
	slots := make(chan struct{}, atOnce)
	for i := range results {
		results[i] = make(chan result, 1)
	}
	go func() {
		for i, arg := range args {
			slots <- struct{}{}
			go func() {
				text, err := do(arg)
				results[i] <- result{text, err}
				<-slots
			}()
		}
	}()
	var errs []error
	for _, ch := range results {
		r := <-ch
		if r.err != nil {
			errs = append(errs, r.err)
		} else if r.text != "" {
			fmt.Fprintln(out, r.text)
		}
	}
	return Join(errs)
}

// Named is Each for what has no result but the argument itself.
func Named(out io.Writer, args []string, do func(arg string) error) error {
	return Each(out, args, func(arg string) (string, error) { return arg, do(arg) })
}

// Join makes one error of many, each a line of its own; of one it is that one, of none nil.
func Join(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// Confirm asks a question on Out and reads the answer; no is the default, and the answer of an input
// that ends.
func (c *CLI) Confirm(question string) (bool, error) {
	fmt.Fprintf(c.Out, "%s [y/N] ", question)
	line, err := bufio.NewReader(c.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}
