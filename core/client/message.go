package client

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// maxLine bounds one line of a progress or event stream.
const maxLine = 4 << 20

// lines decodes one JSON value a line until the end of r.
func lines[T any](ctx context.Context, r io.Reader, each func(T) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 16*1024), maxLine)
	for s.Scan() {
		line := s.Bytes()
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			continue
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("decode the server's stream: %w", err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return transportError(ctx, err)
	}
	return nil
}

// progress sends r and calls each with every message. A message that carries an error ends the
// stream with that error; the status 200 was sent long before.
func (c *Client) progress(ctx context.Context, r request, each func(wire.Message) error) error {
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return lines(ctx, resp.Body, func(m wire.Message) error {
		if err := messageError(m); err != nil {
			return err
		}
		if each == nil {
			return nil
		}
		return each(m)
	})
}

func messageError(m wire.Message) error {
	switch {
	case m.ErrorDetail != nil && m.ErrorDetail.Message != "":
		return refused(m.ErrorDetail.Code, m.ErrorDetail.Message)
	case m.Error != "":
		return refused(0, m.Error)
	}
	return nil
}

// encodeAuth writes a login as the X-Registry-Auth header wants it.
func encodeAuth(auth *wire.AuthConfig) (http.Header, error) {
	if auth == nil {
		return nil, nil
	}
	data, err := json.Marshal(auth)
	if err != nil {
		return nil, fmt.Errorf("encode the login: %w", err)
	}
	return http.Header{"X-Registry-Auth": {base64.URLEncoding.EncodeToString(data)}}, nil
}

// errNoID is a server that ended a build without the image's ID.
var errNoID = fault.As(fault.Internal, errors.New("the server sent no image ID"))
