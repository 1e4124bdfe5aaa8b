"""How the control is used, in several languages: what `/_test/openapi.json` shows, and what the tests run as it is.

Each sample is a whole program that prints the answer. Where a path has `{id}`, it is the program's first argument.
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str  # below the control's URL
    body: object = None  # sent as JSON; None is no body


OPERATIONS = {
    "registry": Operation("GET", "/registry"),
    "reset": Operation("POST", "/reset"),
    "seed": Operation("POST", "/seed", {"namespace": "team-a", "charts": [{"name": "app", "version": "1.2.3"}]}),
    "requests": Operation("GET", "/requests"),
    "list faults": Operation("GET", "/faults"),
    "faults": Operation("POST", "/faults", {"rules": [{"path": "*/manifests/*", "times": 2, "status": 502}]}),
    "clear faults": Operation("DELETE", "/faults"),
    "clock": Operation("POST", "/clock", {"advance": 3600}),
    "collect": Operation("POST", "/collect"),
    "registries": Operation("POST", "/registries", {"versions": "immutable"}),
    "end": Operation("DELETE", "/registries/{id}"),
}


def shell(asked: Operation) -> str:
    lines = ['curl -sSf -H "Authorization: Bearer $CHART_REGISTRY_CONTROL_TOKEN"']
    if asked.method != ("GET" if asked.body is None else "POST"):
        lines.append(f"-X {asked.method}")
    if asked.body is not None:
        lines.append(f"-H 'Content-Type: application/json' -d '{json.dumps(asked.body)}'")
    lines.append(f'"$CHART_REGISTRY_CONTROL_URL{asked.path.replace("{id}", "$1")}"')
    return " \\\n  ".join(lines) + "\n"


_GO = """\
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"%(imports)s
)

func main() {
	url := os.Getenv("CHART_REGISTRY_CONTROL_URL") + %(path)s
	request, err := http.NewRequest("%(method)s", url, %(body)s)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("CHART_REGISTRY_CONTROL_TOKEN"))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		panic(fmt.Sprint(response.Status, string(answer), err))
	}
	fmt.Print(string(answer))
}
"""


def go(asked: Operation) -> str:
    has_body = asked.body is not None
    return _GO % {
        "method": asked.method,
        "path": _joined(asked.path, "os.Args[1]"),
        "body": f"strings.NewReader(`{json.dumps(asked.body)}`)" if has_body else "http.NoBody",
        "imports": '\n\t"strings"' if has_body else "",
    }


_JAVASCRIPT = """\
const response = await fetch(process.env.CHART_REGISTRY_CONTROL_URL + %(path)s, {
  method: "%(method)s",
  headers: {
    Authorization: `Bearer ${process.env.CHART_REGISTRY_CONTROL_TOKEN}`,
    "Content-Type": "application/json",
  },%(body)s
});
const answer = await response.text();
if (!response.ok) throw new Error(`${response.status} ${answer}`);
process.stdout.write(answer);
"""


def javascript(asked: Operation) -> str:
    return _JAVASCRIPT % {
        "method": asked.method,
        "path": _joined(asked.path, "process.argv[2]"),
        "body": f"\n  body: JSON.stringify({json.dumps(asked.body)})," if asked.body is not None else "",
    }


_JAVA = """\
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

public class Sample {
    public static void main(String[] args) throws Exception {
        var url = System.getenv("CHART_REGISTRY_CONTROL_URL") + %(path)s;
        var request = HttpRequest.newBuilder(URI.create(url))
            .header("Authorization", "Bearer " + System.getenv("CHART_REGISTRY_CONTROL_TOKEN"))
            .header("Content-Type", "application/json")
            .method("%(method)s", %(body)s)
            .build();
        var response = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
        if (response.statusCode() >= 300) {
            throw new IllegalStateException(response.statusCode() + " " + response.body());
        }
        System.out.print(response.body());
    }
}
"""


def java(asked: Operation) -> str:
    has_body = asked.body is not None
    return _JAVA % {
        "method": asked.method,
        "path": _joined(asked.path, "args[0]"),
        "body": f"BodyPublishers.ofString({json.dumps(json.dumps(asked.body))})"
        if has_body
        else "BodyPublishers.noBody()",
    }


def _joined(path: str, identity: str) -> str:
    """The path as a literal that Go, JavaScript and Java share."""
    before, found, _ = path.partition("{id}")
    return f'"{before}" + {identity}' if found else f'"{path}"'


LANGUAGES = {"Shell": shell, "Go": go, "JavaScript": javascript, "Java": java}


def samples(name: str) -> list[dict[str, str]]:
    """As OpenAPI's `x-codeSamples` has them."""
    return [{"lang": language, "source": write(OPERATIONS[name])} for language, write in LANGUAGES.items()]
