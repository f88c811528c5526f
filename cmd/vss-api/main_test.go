package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestTheCommandLineKeepsToTheTableOfExitCodes(t *testing.T) {
	t.Setenv("DATABASE_URL", "") // put back at the end
	if err := os.Unsetenv("DATABASE_URL"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--version"}, 0, "vss-api "},
		{[]string{"help"}, 0, "Exit codes: 0 done;"},
		{[]string{"--help"}, 0, "--database-url"},
		{nil, 2, "vss-api: missing flags: --database-url"},
		{[]string{"--no-such-flag"}, 2, "unknown flag --no-such-flag"},
		{[]string{"--database-url", "postgres://127.0.0.1:1/none", "--memory", "64"}, 2, "--memory"},
		{[]string{"--database-url", "postgres://127.0.0.1:1/none", "--api-listen", "nowhere:no"}, 1, ""},
		{[]string{"__complete", "--database"}, 0, "--database-url\n"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), tc.args, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.want) {
			t.Errorf("vss-api %v: exit code %d, want %d and %q in\n%s", tc.args, code, tc.code, tc.want, &out)
		}
	}
}
