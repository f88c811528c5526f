package egress

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestAURLIsShownWithoutTheValuesOfItsQuery(t *testing.T) {
	t.Parallel()
	for url, want := range map[URL]string{
		"https://a.example/keys":                           "https://a.example/keys",
		"https://a.example/keys?":                          "https://a.example/keys?***",
		"https://a.example/keys?secret":                    "https://a.example/keys?***",
		"https://a.example/keys?key=secret":                "https://a.example/keys?key=***",
		"https://a.example/keys?v=1&key=secret=?secret&=x": "https://a.example/keys?v=***&key=***&=***",
	} {
		text, err := json.Marshal(map[string]URL{"url": url})
		if err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("", "url", url)
		slog.New(slog.NewTextHandler(&log, nil)).Info("", "url", url)
		if got := url.String(); got != want {
			t.Errorf("%q is shown as %q, want %q", string(url), got, want)
		}
		if strings.Contains(string(text)+log.String()+fmt.Sprintf("%v %q %s", url, url, url), "secret") {
			t.Errorf("%s %s", text, &log)
		}
	}
}
