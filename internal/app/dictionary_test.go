package app

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/internal/corpus"
)

// TestTrain: the command writes a dictionary that can be used, named by its
// digest where nothing else is asked for.
func TestTrain(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	if err := os.WriteFile("sample.binpb.gz", corpus.Sample(), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(c TrainConfig, code int) string {
		t.Helper()
		var log bytes.Buffer
		err := Train(c, Streams{Err: &log})
		if got := Report(&log, err); got != code {
			t.Errorf("%+v: exit code %d, want %d:\n%s", c, got, code, log.String())
		}
		return log.String()
	}
	log := f(TrainConfig{Recordings: []string{"sample.binpb.gz"}, Size: 30_000}, ExitDone)
	made, err := filepath.Glob("*.dict")
	if err != nil || len(made) != 1 || !strings.Contains(log, made[0]) {
		t.Fatalf("made %v, %v: %s", made, err, log)
	}
	content, err := os.ReadFile(made[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := datagram.NewDictionary(content); err != nil || len(content) > 30_000 {
		t.Errorf("%d bytes: %v", len(content), err)
	}
	f(TrainConfig{Recordings: []string{"sample.binpb.gz", "sample.binpb.gz"}, Size: datagram.DefaultDictionary, Pods: true, Output: "pods.dict"}, ExitDone)
	if content, _ = os.ReadFile("pods.dict"); !bytes.Contains(content, []byte("app.kubernetes.io/name")) {
		t.Error("the dictionary knows no pods")
	}
	f(TrainConfig{Recordings: []string{"none.binpb"}, Size: 30_000}, ExitFailed)
	f(TrainConfig{Recordings: []string{"sample.binpb.gz"}, Size: 1}, ExitUsage)
	f(TrainConfig{Recordings: []string{"sample.binpb.gz"}, Size: 30_000, Output: "no/such/folder"}, ExitFailed)
}

func TestWithPods(t *testing.T) {
	exec := &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{
		Process: &tetragon.Process{Binary: "/bin/true"}, Parent: &tetragon.Process{Binary: "/bin/sh"}}}}
	message, err := proto.Marshal(exec)
	if err != nil {
		t.Fatal(err)
	}
	inPods, err := withPods([][]byte{message, message, message, message, message})
	if err != nil || len(inPods) != 2 {
		t.Fatalf("%d events, %v; want 2", len(inPods), err)
	}
	var got tetragon.GetEventsResponse
	if err := proto.Unmarshal(inPods[0], &got); err != nil {
		t.Fatal(err)
	}
	process, parent := got.GetProcessExec().GetProcess(), got.GetProcessExec().GetParent()
	if process.GetBinary() != "/bin/true" || process.GetPod().GetName() == "" || !proto.Equal(process.GetPod(), parent.GetPod()) ||
		!strings.HasPrefix(process.GetPod().GetContainer().GetId(), "containerd://"+process.GetDocker()) {
		t.Errorf("%v", &got)
	}
	if _, err := withPods([][]byte{{0xff}}); err == nil || errors.Is(err, datagram.ErrUntrainable) {
		t.Errorf("junk: %v", err)
	}
}
