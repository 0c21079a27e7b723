package wire

// Secret is a secret of a swarm. Its data is never answered.
type Secret struct {
	ID string `json:"ID"`
	ObjectMeta
	Spec SecretSpec `json:"Spec"`
}

// SecretSpec is the body of POST /secrets/create; Data is base64 in JSON.
type SecretSpec struct {
	Annotations
	Data       []byte       `json:"Data,omitempty"`
	Driver     *NamedDriver `json:"Driver,omitempty"`
	Templating *NamedDriver `json:"Templating,omitempty"`
}

// Config is a file that services share.
type Config struct {
	ID string `json:"ID"`
	ObjectMeta
	Spec ConfigSpec `json:"Spec"`
}

// ConfigSpec is the body of POST /configs/create; Data is base64 in JSON.
type ConfigSpec struct {
	Annotations
	Data       []byte       `json:"Data,omitempty"`
	Templating *NamedDriver `json:"Templating,omitempty"`
}
