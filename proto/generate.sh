#!/bin/sh
# Makes the Go code of every .proto below this folder again. Needs protoc (Debian: protobuf-compiler);
# the Go generators are tools of the module, at the versions of go.mod.
set -eu
cd "$(dirname "$0")"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
for tool in protoc-gen-go protoc-gen-go-grpc; do
	# protoc wants programs, `go tool` builds them.
	printf '#!/bin/sh\nexec go tool %s "$@"\n' "$tool" >"$tools/$tool"
	chmod +x "$tools/$tool"
done
find sampan -name '*.proto' | LC_ALL=C sort | while read -r file; do
	protoc --plugin="$tools/protoc-gen-go" --plugin="$tools/protoc-gen-go-grpc" \
		--go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative \
		-I . "$file"
	# The header names the protoc of this machine; the code does not depend on it.
	sed -i -E '/^\/\/ \t?-? ?protoc +v[0-9.]+$/d; /^\/\/ - protoc +v/d' "${file%.proto}.pb.go" "${file%.proto}_grpc.pb.go"
done
