package operation

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"testing"
	"time"
)

func TestOperation(t *testing.T) {
	var told []string
	var log bytes.Buffer
	var level slog.LevelVar
	r := &Recorder{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: &level})), Done: func(noun, verb string, _ time.Duration, err error) {
		told = append(told, noun+verb)
		if err != nil {
			told = append(told, err.Error())
		}
	}}
	r.Begin("image", "pull", "x").End(nil)
	if log.Len() > 0 {
		t.Errorf("without debug: %s", log.String())
	}
	level.Set(slog.LevelDebug)
	op := r.Begin("container", "start", "abc")
	op.Phase("network")
	op.Phase("monitor")
	op.End(errors.New("boom"))
	want := regexp.MustCompile(`msg=operation operation="container start" id=abc duration=\S+ phases\.network=\S+ phases\.monitor=\S+ error=boom\n$`)
	if !want.MatchString(log.String()) {
		t.Errorf("got %s", log.String())
	}
	if len(told) != 3 || told[0] != "imagepull" || told[1] != "containerstart" || told[2] != "boom" {
		t.Errorf("told %q", told)
	}
	var none *Recorder
	op = none.Begin("a", "b", "c")
	op.Phase("d")
	op.End(nil)
}
