// Package proto is the protocol between the engine and its plugins, a folder for each service and
// version: sampan/plugin/v1 is what every plugin answers, sampan/network/v1 is a network driver.
// The .proto files are the documentation; beside them is the Go code that is generated from them.
package proto

//go:generate sh ./generate.sh
