package chartregistry

import (
	"bytes"
	"strings"
	"testing"

	helm "helm.sh/helm/v4/pkg/registry"
)

func newClient(t *testing.T) *helm.Client {
	t.Helper()
	client, err := helm.NewClient(helm.ClientOptPlainHTTP(), helm.ClientOptWriter(&bytes.Buffer{}))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestWhatIsPushedIsPulled(t *testing.T) {
	t.Parallel()
	registry, client := Start(t), newClient(t)
	registry.Seed(t, "team-a", Object{"name": "app", "version": "1.2.3"})

	pulled, err := client.Pull(registry.Host + "/team-a/app:1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Push(pulled.Chart.Data, registry.Host+"/team-b/app:1.2.3"); err != nil {
		t.Fatal(err)
	}
	again, err := client.Pull(registry.Host + "/team-b/app:1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pulled.Chart.Data, again.Chart.Data) {
		t.Error("another archive came back")
	}
	tags, err := client.Tags(registry.Host + "/team-b/app")
	if err != nil || len(tags) != 1 {
		t.Errorf("tags %v, %v", tags, err)
	}
}

func TestAPullSurvivesTwoBadGateways(t *testing.T) {
	t.Parallel()
	registry, client := Start(t), newClient(t)
	registry.Seed(t, "", Object{"name": "app", "version": "1.2.3"})
	registry.Fail(t, Object{"path": "*/manifests/*", "times": 2, "status": 502})

	if _, err := client.Pull(registry.Host + "/app:1.2.3"); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, request := range registry.Requests(t) {
		if request.Status == 502 {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d requests failed", failed)
	}
}

func TestAVersionThatIsHereCannotBeReplaced(t *testing.T) {
	t.Parallel()
	registry, client := Start(t, Object{"versions": "immutable"}), newClient(t)
	registry.Seed(t, "team-a", Object{"name": "app", "version": "1.2.3"})
	other := Start(t)
	other.Seed(t, "", Object{"name": "app", "version": "1.2.3", "appVersion": "2"})
	changed, err := client.Pull(other.Host + "/app:1.2.3")
	if err != nil {
		t.Fatal(err)
	}

	_, err = client.Push(changed.Chart.Data, registry.Host+"/team-a/app:1.2.3")
	if err == nil || !strings.Contains(err.Error(), "versions cannot be replaced") {
		t.Errorf("pushed: %v", err)
	}
}
