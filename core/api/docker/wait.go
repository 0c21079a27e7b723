package docker

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// waitConditions are the values of "condition"; no value is the first.
var waitConditions = []string{"not-running", "next-exit", "removed"}

// wait answers in two steps: the header, when the waiter is registered, and the exit status.
// `docker run` starts the container when it has the header.
func (c containers) wait(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	condition := q.Text("condition")
	if err := q.Err(); err != nil {
		return err
	}
	if condition == "" || r.Version < 30 { // the parameter came with v1.30
		condition = waitConditions[0]
	}
	if !slices.Contains(waitConditions, condition) {
		return fault.New(fault.Invalid, "invalid condition: %q: expected one of %s", condition, strings.Join(waitConditions, ", "))
	}
	ctx, cancel := r.Stream()
	defer cancel()
	result, err := c.backend.Wait(ctx, r.Variable(), condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Version >= 30 {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
	}
	select {
	case answer, ok := <-result:
		if !ok {
			answer = wire.WaitResponse{StatusCode: -1, Error: &wire.WaitError{Message: "the wait ended without a result"}}
		}
		return json.NewEncoder(w).Encode(answer)
	case <-ctx.Done():
		return ctx.Err()
	}
}
