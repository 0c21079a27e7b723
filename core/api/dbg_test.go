package api
import ("testing";"io";"fmt";"net/http";"archive/tar";"time"; "github.com/sampan-project/sampan/core/api/route";"github.com/sampan-project/sampan/core/fault")
func TestDbg(t *testing.T) {
	body := func() io.Reader { return upload(t, `{"nodes":[],"target":0}`) }
	for k := 8; k < 9; k++ {
		s := newServer(t)
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			read := func() {
			b := http.MaxBytesReader(w, r.Body, 1<<38)
			tr := tar.NewReader(b); tr.Next(); io.ReadAll(tr) }
			a := &recorder{ResponseWriter: w}
			switch k {
			case 0: read(); a.WriteHeader(400); io.WriteString(a, "{}")
			case 1: read(); s.answerError(a, r, fault.New(fault.Invalid, "x"))
			case 2: read(); route.WriteJSON(w, 400, "x")
			case 3: read(); route.WriteJSON(a, 400, "x"); time.Sleep(time.Millisecond)
			case 4: err := s.handle(a, r); s.answerError(a, r, err)
			case 5: s.handle(a, r); a.WriteHeader(400); io.WriteString(a, "{}")
			case 7: route.NewProgress(w); read(); time.Sleep(200*time.Microsecond); a.WriteHeader(400); io.WriteString(a, "{}")
			case 8: version, path, _ := route.SplitVersion(r.URL.Path); _, v, _ := s.table.Find(r.Method, path); q := route.NewRequest(r, version, v, nil); io.ReadFull(q.Upload(w), make([]byte, 1000));  a.WriteHeader(400); io.WriteString(a, "{}")
			case 6: s.handle(a, r); a.WriteHeader(400); io.WriteString(a, "{}"); time.Sleep(time.Millisecond)
			}
		})
		bad := 0
		for range 300 {
			req, _ := http.NewRequest("POST","http://x/sampan/v1/build", body())
			resp, err := s.client.Do(req)
			if err != nil { bad++; continue }
			io.ReadAll(resp.Body); resp.Body.Close()
		}
		fmt.Println(k,bad)
	}
}
