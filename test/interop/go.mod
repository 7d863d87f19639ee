module tetracast/test/interop

go 1.26.0

replace tetracast => ../..

require (
	github.com/leodido/go-syslog/v4 v4.6.0
	tetracast v0.0.0
)

require (
	github.com/cilium/tetragon/api v1.7.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/grpc v1.85.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
