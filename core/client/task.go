package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sampan-project/sampan/core/wire"
)

// TaskList lists tasks.
func (c *Client) TaskList(ctx context.Context, f Filters) ([]wire.Task, error) {
	return swarmList[wire.Task](ctx, c, "/tasks", f, nil)
}

// TaskInspect describes a task.
func (c *Client) TaskInspect(ctx context.Context, id string) (wire.Task, error) {
	return inspected[wire.Task](c.TaskInspectRaw(ctx, id))
}

// TaskInspectRaw is TaskInspect with all that the server sent.
func (c *Client) TaskInspectRaw(ctx context.Context, id string) (json.RawMessage, error) {
	return swarmInspect(ctx, c, "task", id, nil)
}

// TaskLogs opens the log of a task, in frames for StdCopy unless it has a terminal.
func (c *Client) TaskLogs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	path, err := swarmObject("task", id, "logs")
	if err != nil {
		return nil, err
	}
	return c.download(ctx, path, o.query())
}

// maxFrame bounds a frame of a log of tasks, which is a line or a part of one.
const maxFrame = 16 << 20

// EachFrame takes the frames of a log of tasks apart. Unlike StdCopy it keeps them whole: each begins with what the
// daemon tells of it.
func EachFrame(src io.Reader, each func(isError bool, frame []byte) error) error {
	var header [frameHeader]byte
	var frame bytes.Buffer
	for {
		switch _, err := io.ReadFull(src, header[:]); {
		case err == io.EOF: //nolint:errorlint // the end of a body is this very value
			return nil
		case err != nil:
			return fmt.Errorf("read the log's frame: %w", err)
		}
		size := binary.BigEndian.Uint32(header[4:])
		if header[0] > frameError || size > maxFrame {
			return fmt.Errorf("read the log's frame: stream %d of %d bytes: expected 0, 1, 2 or 3, and at most %d", header[0], size, maxFrame)
		}
		frame.Reset()
		n, err := io.CopyN(&frame, src, int64(size))
		if n < int64(size) && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read the log's frame: %w", err)
		}
		if header[0] == frameError {
			return fmt.Errorf("error from daemon in stream: %s", frame.String())
		}
		if err := each(header[0] == frameStderr, frame.Bytes()); err != nil {
			return err
		}
	}
}
