package app

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// podEvery is how many events of a recording there are for each one in a pod: a
// dictionary should know what pods look like, and not have room for little else.
const podEvery = 4

// workloads are what the invented pods run. Only what all clusters have in
// common is of use in a dictionary: the keys, registries and namespaces.
var workloads = []struct{ namespace, name, kind, image string }{
	{"kube-system", "coredns", "Deployment", "registry.k8s.io/coredns/coredns:v1.12.1"},
	{"kube-system", "kube-proxy", "DaemonSet", "registry.k8s.io/kube-proxy:v1.33.1"},
	{"monitoring", "prometheus", "StatefulSet", "quay.io/prometheus/prometheus:v3.4.0"},
	{"monitoring", "node-exporter", "DaemonSet", "quay.io/prometheus/node-exporter:v1.9.1"},
	{"ingress-nginx", "ingress-nginx-controller", "Deployment", "registry.k8s.io/ingress-nginx/controller:v1.12.2"},
	{"default", "web", "Deployment", "docker.io/library/nginx:latest"},
	{"default", "database", "StatefulSet", "docker.io/library/postgres:17"},
	{"default", "cache", "Deployment", "docker.io/library/redis:7"},
	{"production", "api", "Deployment", "ghcr.io/example/api:1.4.2"},
	{"production", "report", "Job", "gcr.io/example/report:2026.1"},
	{"staging", "worker", "Deployment", "public.ecr.aws/example/worker:latest"},
}

// withPods returns some of the events as if their processes had run in pods of
// a cluster. The same events give the same result.
func withPods(messages [][]byte) (inPods [][]byte, err error) {
	random := rand.New(rand.NewPCG(1, 2))
	pod := newPod(random)
	for i := 0; i < len(messages); i += podEvery {
		if i%(16*podEvery) == 0 {
			pod = newPod(random) // events of one pod come together
		}
		var response tetragon.GetEventsResponse
		if err := proto.Unmarshal(messages[i], &response); err != nil {
			return nil, fmt.Errorf("app: event %d: %w", i+1, err)
		}
		response.NodeName = "worker-1"
		for _, process := range processes(&response) {
			process.Docker = pod.GetContainer().GetId()[len("containerd://"):][:31]
			process.Pod = pod
		}
		message, err := proto.MarshalOptions{Deterministic: true}.Marshal(&response)
		if err != nil {
			return nil, fmt.Errorf("app: event %d: %w", i+1, err)
		}
		inPods = append(inPods, message)
	}
	return inPods, nil
}

// processes returns the process and the parent of an event.
func processes(response *tetragon.GetEventsResponse) (list []*tetragon.Process) {
	m := response.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("event"))
	if field == nil {
		return nil
	}
	event := m.Get(field).Message()
	for _, name := range []protoreflect.Name{"process", "parent"} {
		f := event.Descriptor().Fields().ByName(name)
		if f == nil || !event.Has(f) {
			continue
		}
		if process, ok := event.Get(f).Message().Interface().(*tetragon.Process); ok {
			list = append(list, process)
		}
	}
	return list
}

func newPod(random *rand.Rand) *tetragon.Pod {
	digits := func(n int) string {
		bytes := make([]byte, n/2)
		for i := range bytes {
			bytes[i] = byte(random.Uint32())
		}
		return hex.EncodeToString(bytes)
	}
	w := workloads[random.IntN(len(workloads))]
	hash, uid := digits(10), digits(32)
	return &tetragon.Pod{
		Namespace: w.namespace,
		Name:      w.name + "-" + hash + "-" + digits(6)[:5],
		Uid:       uid[:8] + "-" + uid[8:12] + "-" + uid[12:16] + "-" + uid[16:20] + "-" + uid[20:],
		Container: &tetragon.Container{
			Id:        "containerd://" + digits(64),
			Name:      w.name,
			Image:     &tetragon.Image{Id: w.image[:len(w.image)-len(tag(w.image))] + "@sha256:" + digits(64), Name: w.image},
			StartTime: &timestamppb.Timestamp{Seconds: 1_767_225_600 + int64(random.IntN(1<<24))},
			Pid:       wrapperspb.UInt32(1 + random.Uint32N(200)),
		},
		PodLabels: map[string]string{
			"app": w.name, "app.kubernetes.io/name": w.name, "app.kubernetes.io/instance": w.name, "app.kubernetes.io/component": w.name,
			"app.kubernetes.io/part-of": w.namespace, "app.kubernetes.io/managed-by": "Helm", "pod-template-hash": hash, "k8s-app": w.name,
		},
		Workload: w.name, WorkloadKind: w.kind,
	}
}

// tag returns an image's tag with its colon.
func tag(image string) string {
	for i := len(image) - 1; image[i] != '/'; i-- {
		if image[i] == ':' {
			return image[i:]
		}
	}
	return ""
}
