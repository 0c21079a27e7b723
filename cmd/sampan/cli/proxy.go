package cli

import "strings"

// Proxy is an entry of "proxies" in config.json: what containers and build steps are told.
type Proxy struct {
	HTTP  string `json:"httpProxy,omitempty"`
	HTTPS string `json:"httpsProxy,omitempty"`
	FTP   string `json:"ftpProxy,omitempty"`
	No    string `json:"noProxy,omitempty"`
	All   string `json:"allProxy,omitempty"`
}

// ProxyVariables are the environment variables for the proxies of an engine, each in both spellings, as
// programs look for either. The entry is that of the engine's address, else "default"; the two are not
// mixed (docker/cli, ParseProxyConfig).
func (c *Config) ProxyVariables(host string) map[string]string {
	p, ok := c.Proxies[host]
	if !ok {
		p = c.Proxies["default"]
	}
	variables := map[string]string{}
	for name, value := range map[string]string{
		"HTTP_PROXY": p.HTTP, "HTTPS_PROXY": p.HTTPS, "FTP_PROXY": p.FTP, "NO_PROXY": p.No, "ALL_PROXY": p.All,
	} {
		if value != "" {
			variables[name], variables[strings.ToLower(name)] = value, value
		}
	}
	return variables
}
