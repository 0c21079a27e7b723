package cli

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProxyVariables(t *testing.T) {
	var config Config
	file := `{"proxies":{
		"default":{"httpProxy":"http://h:1","httpsProxy":"http://s:2","ftpProxy":"http://f:3","noProxy":"a,b","allProxy":"socks5://l:4"},
		"tcp://10.0.0.1:2376":{"noProxy":"*"},
		"unix:///none.sock":{}
	}}`
	if err := json.Unmarshal([]byte(file), &config); err != nil {
		t.Fatal(err)
	}
	tests := map[string]map[string]string{
		"unix:///run/any.sock": {
			"HTTP_PROXY": "http://h:1", "http_proxy": "http://h:1", "HTTPS_PROXY": "http://s:2", "https_proxy": "http://s:2",
			"FTP_PROXY": "http://f:3", "ftp_proxy": "http://f:3", "NO_PROXY": "a,b", "no_proxy": "a,b",
			"ALL_PROXY": "socks5://l:4", "all_proxy": "socks5://l:4",
		},
		"tcp://10.0.0.1:2376": {"NO_PROXY": "*", "no_proxy": "*"},
		"unix:///none.sock":   {},
	}
	for host, want := range tests {
		if diff := cmp.Diff(want, config.ProxyVariables(host)); diff != "" {
			t.Errorf("%s: %s", host, diff)
		}
	}
	if got := new(Config).ProxyVariables("unix:///run/any.sock"); len(got) != 0 {
		t.Errorf("without proxies: got %v", got)
	}
}
