package api
import ("testing";"strings";"io";"fmt";"net/http")
func TestDbg(t *testing.T) {
	cases := map[string]func() io.Reader{
		"notar": func() io.Reader { return strings.NewReader("nonsense") },
		"nograph": func() io.Reader { return upload(t, `{"nodes":[],"target":0}`) },
		"unknown": func() io.Reader { return upload(t, `{"nodes":[{"op":"scratch","shell":true}],"target":0}`) },
	}
	for a := range cases { for b := range cases {
		s := newServer(t); s.builder.solve=nil
		bad := 0
		for i := range 300 {
			c := a
			if i%2==1 { c = b }
			req, _ := http.NewRequest("POST","http://x/sampan/v1/build", cases[c]())
			resp, err := s.client.Do(req)
			if err != nil { bad++; continue }
			io.ReadAll(resp.Body); resp.Body.Close()
		}
		fmt.Println(a,b,bad)
	}}
}
