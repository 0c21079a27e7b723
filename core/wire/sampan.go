package wire

// The shapes of /sampan/v1, for what Docker's API lacks.

// Schema describes one resource kind of one driver: GET /sampan/v1/schemas answers a list.
type Schema struct {
	Kind       string      `json:"kind"`   // network, volume, storage, builder
	Driver     string      `json:"driver"` // bridge
	Version    string      `json:"version"`
	Doc        string      `json:"doc"`
	Attributes []Attribute `json:"attributes"`
}

// Attribute is one driver option: what a script may write after driver = "...".
type Attribute struct {
	Name     string   `json:"name"`
	Aliases  []string `json:"aliases,omitempty"` // other names that are taken, such as Docker's
	Type     string   `json:"type"`              // string, bool, int, size, duration, list, map
	Default  string   `json:"default,omitempty"`
	Required bool     `json:"required,omitempty"`
	Enum     []string `json:"enum,omitempty"`
	Min      *int64   `json:"min,omitempty"`
	Max      *int64   `json:"max,omitempty"`
	InPlace  bool     `json:"inPlace,omitempty"` // a change needs no replacement
	Doc      string   `json:"doc"`
}

// BuildGraph is what a build script evaluates to; the daemon solves it.
//
// POST /sampan/v1/build takes a tar stream: first the entry "graph.json" with this value, then
// every local source below "local/<name>/". It answers a stream of Message, of which the last has
// aux {"ID": "sha256:..."} or errorDetail.
type BuildGraph struct {
	// Nodes are in topological order: an input's index is below its user's.
	Nodes []BuildNode `json:"nodes"`
	// Target is the index of the node that becomes the image.
	Target int      `json:"target"`
	Tags   []string `json:"tags,omitempty"`
	// NoCache runs every step again.
	NoCache bool `json:"noCache,omitempty"`
	// Proxies are variables such as HTTP_PROXY for the commands that do not set them. How the network
	// is reached says nothing about the result: no key of the cache, and no image, has them.
	Proxies map[string]string `json:"proxies,omitempty"`
}

// BuildNode is one operation; the field named like Op is set, none for scratch.
type BuildNode struct {
	Op     string       `json:"op"` // scratch, image, local, run, copy, config
	Image  *BuildImage  `json:"image,omitempty"`
	Local  *BuildLocal  `json:"local,omitempty"`
	Run    *BuildRun    `json:"run,omitempty"`
	Copy   *BuildCopy   `json:"copy,omitempty"`
	Config *BuildConfig `json:"config,omitempty"`
	// Position is file:line:column of the call that made the node, for messages.
	Position string `json:"position,omitempty"`
}

// BuildImage starts from an image, pulled when it is missing.
type BuildImage struct {
	Ref string `json:"ref"`
}

// BuildLocal is files sent with the request.
type BuildLocal struct {
	Name string `json:"name"`
}

// BuildRun runs a command on Base's root filesystem and keeps what it writes.
type BuildRun struct {
	Base    int               `json:"base"`
	Args    []string          `json:"args"`
	Env     map[string]string `json:"env,omitempty"`
	Cwd     string            `json:"cwd,omitempty"`
	User    string            `json:"user,omitempty"`
	Network string            `json:"network,omitempty"` // "" is the default network; none, host
	Mounts  []BuildMount      `json:"mounts,omitempty"`
}

// BuildMount shows a node's files, or a named cache directory, to a command.
type BuildMount struct {
	Input    *int   `json:"input,omitempty"` // a node, read-only
	Path     string `json:"path,omitempty"`  // below the node's root
	Cache    string `json:"cache,omitempty"` // a cache's name, when Input is nil
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// BuildCopy copies Source of node From to Dest on Base.
type BuildCopy struct {
	Base   int    `json:"base"`
	From   int    `json:"from"`
	Source string `json:"source"`
	Dest   string `json:"dest"`
	Owner  string `json:"owner,omitempty"` // user[:group], names of Base or numbers
	Mode   string `json:"mode,omitempty"`  // octal
}

// BuildConfig changes the image configuration; nil and empty fields are left as they are.
type BuildConfig struct {
	Base       int               `json:"base"`
	Env        map[string]string `json:"env,omitempty"`
	Entrypoint *[]string         `json:"entrypoint,omitempty"`
	Cmd        *[]string         `json:"cmd,omitempty"`
	WorkingDir *string           `json:"workingDir,omitempty"`
	User       *string           `json:"user,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Expose     []string          `json:"expose,omitempty"` // "80/tcp"
	Volumes    []string          `json:"volumes,omitempty"`
	StopSignal *string           `json:"stopSignal,omitempty"`
	Health     *Healthcheck      `json:"health,omitempty"`
}

// PluginInfo is one row of GET /sampan/v1/plugins.
type PluginInfo struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path"`
	Digest  string `json:"digest"`
	State   string `json:"state"` // idle running failed
	Pid     int    `json:"pid,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Finding is one thing that `system check` found to be inconsistent. GET /sampan/v1/check answers a list;
// POST mends what can be mended without loss first. The query verify=1 reads every blob.
type Finding struct {
	Kind     string `json:"kind"` // image, layer, volume, ...
	Subject  string `json:"subject"`
	Problem  string `json:"problem"`
	Mendable bool   `json:"mendable,omitempty"`
	Repaired string `json:"repaired,omitempty"` // what was done, "" when it was not
	Error    string `json:"error,omitempty"`    // why it could not be mended
	Advice   string `json:"advice,omitempty"`   // what a person can do
}
