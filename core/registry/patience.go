package registry

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

const (
	// maxPatience is the longest time that a registry which is asked too often is waited for.
	maxPatience = 30 * time.Second
	// maxRefusals is how often in a row it may say so.
	maxRefusals = 3
)

// patient carries requests to a registry that may say that it was asked too often (RFC 6585, section 4). It is
// asked again after the time that it tells (RFC 9110, section 10.2.3) where that is short, and else the
// error has that time.
type patient struct{ inner http.RoundTripper }

func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	for tries := 1; ; tries++ {
		fresh, again, err := rewound(r)
		if err != nil {
			return nil, err
		}
		resp, err := p.inner.RoundTrip(fresh)
		if err != nil || resp.StatusCode != http.StatusTooManyRequests {
			return resp, err
		}
		wait, told := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		if !told {
			wait = time.Duration(tries) * time.Second
		}
		if tries >= maxRefusals || wait > maxPatience || !again {
			defer resp.Body.Close()
			return nil, tooMany(resp.Body, wait, told)
		}
		resp.Body.Close()
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

// rewound returns the request with its body from the beginning, and whether that can be done once more. Whoever
// carries requests with tokens sends the same one twice when a token has run out, and leaves that to us.
func rewound(r *http.Request) (*http.Request, bool, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, true, nil
	}
	if r.GetBody == nil {
		return r, false, nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false, err
	}
	r.Body.Close()
	fresh := r.Clone(r.Context())
	fresh.Body = body
	return fresh, true, nil
}

// refused is the error of a registry that is asked too often. It may come among others: of an insecure
// registry that was tried in TLS too.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// tooMany has the registry's own words, and when to come again.
func tooMany(body io.Reader, wait time.Duration, told bool) error {
	var answer struct {
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	message := "the registry refuses for now: too many requests"
	if json.NewDecoder(io.LimitReader(body, maxManifest)).Decode(&answer) == nil && len(answer.Errors) > 0 && answer.Errors[0].Message != "" {
		message = oneLine(answer.Errors[0].Message)
	}
	if told {
		return refused{fault.New(fault.Unavailable, "toomanyrequests: %s (it says: try again in %s)", message, wait.Round(time.Second))}
	}
	return refused{fault.New(fault.Unavailable, "toomanyrequests: %s", message)}
}

// retryAfter reads the header, which has seconds or a date.
func retryAfter(value string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}
