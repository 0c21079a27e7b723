package sampan

import (
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
)

// check answers what is inconsistent, and with repair mends it.
func (h handlers) check(repair bool) func(http.ResponseWriter, *route.Request) error {
	return func(w http.ResponseWriter, r *route.Request) error {
		if h.Checker == nil {
			return fault.New(fault.NotImplemented, "checking is not supported by this daemon")
		}
		q := r.Query()
		verify := q.Bool("verify")
		if err := q.Err(); err != nil {
			return err
		}
		found, err := h.Checker.Check(r.Context(), verify, repair)
		if err != nil {
			return err
		}
		return route.WriteJSON(w, http.StatusOK, found)
	}
}
