import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class RegistryTest {
    private static final String URL = System.getenv("CHART_REGISTRY_URL");
    private static final String CONTROL = System.getenv("CHART_REGISTRY_CONTROL_URL");
    private static final String TOKEN = System.getenv("CHART_REGISTRY_CONTROL_TOKEN");

    private final HttpClient client = HttpClient.newHttpClient();

    private HttpResponse<String> send(HttpRequest.Builder request) throws Exception {
        return client.send(request.build(), BodyHandlers.ofString());
    }

    private HttpRequest.Builder to(String path) {
        return HttpRequest.newBuilder(URI.create(URL + path));
    }

    private void control(String path, String body) throws Exception {
        var answer = send(HttpRequest.newBuilder(URI.create(CONTROL + "/" + path)).header("Authorization", "Bearer " + TOKEN)
            .header("Content-Type", "application/json").POST(BodyPublishers.ofString(body)));
        assertTrue(answer.statusCode() < 300, answer.body());
    }

    @BeforeEach
    void reset() throws Exception {
        control("reset", "");
        control("seed", "{\"namespace\": \"team-a\", \"charts\": [{\"name\": \"app\", \"version\": \"1.2.3\"}]}");
    }

    @Test
    void tagsAreListed() throws Exception {
        var answer = send(to("/v2/team-a/app/tags/list"));
        assertEquals("{\"name\": \"team-a/app\", \"tags\": [\"1.2.3\"]}", answer.body());
    }

    @Test
    void aBlobIsPushed() throws Exception {
        var digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        var pushed = send(to("/v2/team-a/app/blobs/uploads/?digest=" + digest).POST(BodyPublishers.ofString("hello")));
        assertEquals(201, pushed.statusCode());
        assertEquals("hello", send(to("/v2/team-a/app/blobs/" + digest)).body());
    }

    @Test
    void aFailureIsOnDemand() throws Exception {
        control("faults", "{\"rules\": [{\"times\": 1, \"retry_after\": 1}]}");
        var refused = send(to("/v2/"));
        assertEquals(429, refused.statusCode());
        assertEquals("1", refused.headers().firstValue("Retry-After").orElseThrow());
        assertEquals(200, send(to("/v2/")).statusCode());
    }
}
