package secrets_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vss-cloud/vss-cloud/tools/torture/secrets"
)

const mark = "torture-value~"

var token = strings.Repeat("02ab34cd56ef7890", 5)[:66] + strings.Repeat("9f8e7d6c5b4a3f21", 8) + "1700000000"

func TestASecretIsFoundHoweverItIsSpelled(t *testing.T) {
	value := []byte("\x00\x01" + mark + "store/7~\xff")
	for name, text := range map[string]string{
		"as it is":                string(value),
		"quoted":                  fmt.Sprintf("%q", value),
		"bytes":                   fmt.Sprintf("%d", value),
		"a bytea of PostgreSQL":   `\x` + hex.EncodeToString(value),
		"base64":                  base64.StdEncoding.EncodeToString(value),
		"base64, shifted by one":  base64.StdEncoding.EncodeToString(value[1:]),
		"base64, shifted by two":  base64.URLEncoding.EncodeToString(value[2:]),
		"a token":                 "authorization: " + token,
		"a part of a token":       token[60:110],
		"a token in upper case":   strings.ToUpper(token),
		"the public key of one":   token[:66],
		"the key's first letters": token[:32] + "...",
	} {
		w := secrets.New(mark)
		w.Token(token)
		w.Read("log", []byte("level=INFO error="+text+"\n"))
		if _, _, hits := w.Result(); len(hits) != 1 {
			t.Errorf("%s: %d hits", name, len(hits))
		}
	}
}

func TestWhatIsNoSecretIsNotFound(t *testing.T) {
	w := secrets.New(mark)
	w.Token(token)
	w.Read("log", []byte(`{"request":"9f8e7d6c5b4a3f21","wallet":"00112233445566778899aabbccddeeff","tenant":"torture"}`))
	if read, _, hits := w.Result(); len(hits) != 0 || !strings.HasPrefix(read, "log 0.0") {
		t.Errorf("%v in %s", hits, read)
	}
	if found, planted := w.Teeth(); found != planted || planted < 10 {
		t.Errorf("%d of %d planted ones are found", found, planted)
	}
}

func TestASourceThatIsNotHeardIsNamed(t *testing.T) {
	w := secrets.New(mark)
	w.Expect("log", "serving", "drained")
	w.Read("log", []byte("serving"))
	if _, silent, _ := w.Result(); len(silent) != 1 || !strings.Contains(silent[0], "drained") {
		t.Errorf("silent: %q", silent)
	}
}

func TestErrorAnswersAreReadAndPassedOn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "cannot write "+mark, http.StatusInternalServerError)
	}))
	defer server.Close()
	w := secrets.New(mark)
	c := http.Client{Transport: w.Transport(&http.Transport{})}
	defer c.CloseIdleConnections()
	resp, err := c.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "cannot write "+mark+"\n" {
		t.Errorf("the body: %q, %v", body, err)
	}
	if _, _, hits := w.Result(); len(hits) != 1 {
		t.Errorf("%d hits", len(hits))
	}
}
