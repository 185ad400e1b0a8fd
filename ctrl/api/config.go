package api

// ConfigView is the answer to GET /v1/config: the configuration in force.
type ConfigView struct {
	// File is the configuration file, empty when there is none.
	File     string    `json:"file,omitempty"`
	Settings []Setting `json:"settings"`
	// Objects are the files or kinds that the source delivered.
	Objects []ObjectSource `json:"objects,omitempty"`
}

// Setting is one key of the configuration.
type Setting struct {
	// Key is dotted, as in xdp.mode.
	Key   string `json:"key"`
	Value any    `json:"value"`
	// From says where it was set: default, file, environment, or detected.
	From string `json:"from"`
}

// ObjectSource is a manifest file, or a kind of object of an API server.
type ObjectSource struct {
	Name    string `json:"name"`
	Objects int    `json:"objects"`
	// Error is why its last version was not taken.
	Error string `json:"error,omitempty"`
}
