// Package chartregistry gives a test a Helm chart registry of its own. Copy this one file; it needs nothing but Go.
//
// Under `uvx charthouse exec -- go test ./...` each Start asks for a further registry in the process that is there. By
// itself it starts one: the command charthouse has to be on the PATH then.
package chartregistry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const patience = 30 * time.Second

// Registry is empty when it starts, and gone when its test has ended.
type Registry struct {
	ID         string `json:"id"`
	Host       string `json:"host"` // as in oci://<Host>/team-a/app
	URL        string `json:"url"`
	Username   string `json:"username"`
	Password   string `json:"password"`
	CAFile     string `json:"ca_file"`
	CertFile   string `json:"client_cert_file"` // with mtls: what clients show
	KeyFile    string `json:"client_key_file"`
	ControlURL string `json:"control_url"`
	Token      string `json:"control_token"`
}

// Request is what a client asked.
type Request struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Query   string            `json:"query"`
	Headers map[string]string `json:"headers"`
	Status  int               `json:"status"`
	Fault   string            `json:"fault"`
}

// Object is JSON: {"policy": "charts"} for Start, {"path": "*/blobs/*", "status": 502} for Fail.
type Object = map[string]any

// Start gives a registry with the settings of POST /_test/registries: auth, tls, mtls, policy, versions, personality, seed.
func Start(t testing.TB, settings ...Object) *Registry {
	t.Helper()
	var first *Registry
	if url := os.Getenv("CHART_REGISTRY_CONTROL_URL"); url != "" {
		first = &Registry{ControlURL: url, Token: os.Getenv("CHART_REGISTRY_CONTROL_TOKEN")}
	} else {
		first = serve(t)
	}
	wanted := Object{}
	for _, each := range settings {
		for name, value := range each {
			wanted[name] = value
		}
	}
	registry := &Registry{}
	first.call(t, "POST", "/registries", wanted, registry)
	registry.Token = first.Token
	t.Cleanup(func() { first.call(t, "DELETE", "/registries/"+registry.ID, nil, nil) })
	return registry
}

// serve starts a process that ends with the test.
func serve(t testing.TB) *Registry {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "registry.json")
	command := exec.Command("charthouse", "serve", "--ephemeral", "--port", "0", "--ready-file", ready)
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatalf("charthouse does not start: %v (try uvx charthouse exec -- go test ./...)", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	})
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if content, err := os.ReadFile(ready); err == nil {
			registry := &Registry{}
			if err := json.Unmarshal(content, registry); err != nil {
				t.Fatal(err)
			}
			return registry
		}
	}
	t.Fatalf("charthouse was not ready after %v", patience)
	return nil
}

// Seed pushes charts: {"name": "app", "version": "1.2.3", "values": {…}}.
func (r *Registry) Seed(t testing.TB, namespace string, charts ...Object) {
	t.Helper()
	r.call(t, "POST", "/seed", Object{"namespace": namespace, "charts": charts}, nil)
}

// Fail makes requests meet a rule: {"path": "*/manifests/*", "times": 2, "status": 502}.
func (r *Registry) Fail(t testing.TB, rules ...Object) {
	t.Helper()
	r.call(t, "POST", "/faults", Object{"rules": rules}, nil)
}

// Requests is what clients asked so far, in order.
func (r *Registry) Requests(t testing.TB) (requests []Request) {
	t.Helper()
	r.call(t, "GET", "/requests", nil, &requests)
	return requests
}

// Advance lets time pass: uploads and tokens expire.
func (r *Registry) Advance(t testing.TB, by time.Duration) {
	t.Helper()
	r.call(t, "POST", "/clock", Object{"advance": by.Seconds()}, nil)
}

// Reset makes it empty, at the same address.
func (r *Registry) Reset(t testing.TB) {
	t.Helper()
	r.call(t, "POST", "/reset", nil, nil)
}

func (r *Registry) call(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	if err := r.do(method, path, body, answer); err != nil {
		t.Fatal(err)
	}
}

func (r *Registry) do(method, path string, body, answer any) error {
	content := []byte{}
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequest(method, r.ControlURL+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+r.Token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, read)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(read, answer)
}
