"""How the control is used, in several languages: what `/_test/openapi.json` shows, and what the tests run as it is."""

_CURL = 'curl -sf -H "Authorization: Bearer $CHART_REGISTRY_CONTROL_TOKEN"'
_JSON = f"{_CURL} --json"

_GO = """\
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	url := os.Getenv("CHART_REGISTRY_URL") + "/_test/registries"
	request, _ := http.NewRequest("POST", url, strings.NewReader(`{"versions": "immutable"}`))
	request.Header.Set("Authorization", "Bearer "+os.Getenv("CHART_REGISTRY_CONTROL_TOKEN"))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	var registry struct{ ID, Host, URL string }
	if err := json.NewDecoder(response.Body).Decode(&registry); err != nil {
		panic(err)
	}
	fmt.Println(registry.Host)
}
"""

_JAVASCRIPT = """\
const response = await fetch(`${process.env.CHART_REGISTRY_URL}/_test/registries`, {
  method: "POST",
  headers: {
    Authorization: `Bearer ${process.env.CHART_REGISTRY_CONTROL_TOKEN}`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify({ versions: "immutable" }),
});
console.log((await response.json()).host);
"""

_JAVA = """\
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Sample {
    public static void main(String[] args) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(System.getenv("CHART_REGISTRY_URL") + "/_test/registries"))
            .header("Authorization", "Bearer " + System.getenv("CHART_REGISTRY_CONTROL_TOKEN"))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString("{\\"versions\\": \\"immutable\\"}"))
            .build();
        var answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body();
        System.out.println(answer.replaceAll(".*\\"host\\":\\"([^\\"]*)\\".*", "$1"));
    }
}
"""

SAMPLES = {
    "reset": {"Shell": f'{_CURL} -X POST "$CHART_REGISTRY_URL/_test/reset"'},
    "seed": {
        "Shell": f"{_JSON} '"
        '{"namespace": "team-a", "charts": [{"name": "app", "version": "1.2.3"}]}'
        '\' "$CHART_REGISTRY_URL/_test/seed"'
    },
    "requests": {"Shell": f'{_CURL} "$CHART_REGISTRY_URL/_test/requests"'},
    "faults": {
        "Shell": f"{_JSON} '"
        '{"rules": [{"path": "*/manifests/*", "times": 2, "status": 502}]}'
        '\' "$CHART_REGISTRY_URL/_test/faults"'
    },
    "list faults": {"Shell": f'{_CURL} "$CHART_REGISTRY_URL/_test/faults"'},
    "clear faults": {"Shell": f'{_CURL} -X DELETE "$CHART_REGISTRY_URL/_test/faults"'},
    "clock": {"Shell": f"{_JSON} '" + '{"advance": 3600}\' "$CHART_REGISTRY_URL/_test/clock"'},
    "end": {
        "Shell": f"id=$({_JSON} '{{}}' \"$CHART_REGISTRY_URL/_test/registries\""
        """ | sed 's/.*"id":"\\([0-9]*\\)".*/\\1/')\n"""
        f'{_CURL} -X DELETE "$CHART_REGISTRY_URL/_test/registries/$id"\n'
        f'! {_CURL} -X DELETE "$CHART_REGISTRY_URL/_test/registries/$id"  # it has ended'
    },
    "collect": {"Shell": f'{_CURL} -X POST "$CHART_REGISTRY_URL/_test/collect"'},
    "registries": {
        "Shell": f"{_JSON} '" + '{"versions": "immutable"}\' "$CHART_REGISTRY_URL/_test/registries"',
        "Go": _GO,
        "JavaScript": _JAVASCRIPT,
        "Java": _JAVA,
    },
}
