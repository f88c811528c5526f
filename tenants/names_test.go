package tenants

import (
	"strings"
	"testing"
)

func TestASlugIsOneDNSLabelInLowerCase(t *testing.T) {
	t.Parallel()
	for _, slug := range []string{"a", "0", "acme", "acme-2", "2-acme", "a--b", "abc--d", strings.Repeat("a", 63)} {
		if err := CheckSlug(slug); err != nil {
			t.Errorf("%q: %v", slug, err)
		}
	}
	for _, slug := range []string{
		"", "-", "-a", "a-", "Acme", "ac me", "a.b", "a_b", "a/b", "a%62", "ä", "acme\n", "acme\x00", "\xff",
		strings.Repeat("a", 64), "xn--acme", "ab--cd", "www", "admin", "api", "console",
	} {
		wantInvalid(t, CheckSlug(slug), "slug")
	}
}

func TestADomainIsAHostNameOfTheTenantsOwn(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4) + "a"
	for given, want := range map[string]string{
		"vss.acme.com":                 "vss.acme.com",
		"VSS.Acme.COM.":                "vss.acme.com",
		"xn--bcher-kva.example":        "xn--bcher-kva.example",
		"acme.localhost":               "acme.localhost",
		"1.2.3.4.com":                  "1.2.3.4.com",
		long:                           long, // 253 characters
		"a." + strings.Repeat("b", 63): "a." + strings.Repeat("b", 63),

		// International names, by UTS 46.
		"bücher.example":  "xn--bcher-kva.example",
		"BÜCHER.Example.": "xn--bcher-kva.example",
		"\u212aelvin.com": "kelvin.com", // the Kelvin sign
	} {
		if got, err := normalDomain(given); err != nil || got != want {
			t.Errorf("%q: got %q, %v", given, got, err)
		}
	}
	for _, given := range []string{
		"", ".", "..", "com", "localhost", "localhost.", ".acme.com", "acme..com", "acme.com..", "acme.com:443", "https://acme.com",
		"acme.com/vss", "user@acme.com", "acme.com ", " acme.com", "ac me.com", "a_b.com", "*.acme.com", "-a.com", "a-.com",
		"acme.com\x00", "acme.\xff", "bü cher.example", "bücher..example", "ａ/b.com", "\u200d.com",
		"1.2.3.4", "127.1", "0x7f.0.0.1", "0x7f000001", "[::1]", "::1", "a.1", "a.0x1",
		"a" + long, "a." + strings.Repeat("b", 64),
	} {
		if got, err := normalDomain(given); err == nil {
			t.Errorf("%q was taken as %q", given, got)
		}
	}
}

func TestAHostHeaderIsComparedWithoutCasePortAndTrailingDot(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"vss.acme.com":         "vss.acme.com",
		"VSS.Acme.COM":         "vss.acme.com",
		"vss.acme.com:8080":    "vss.acme.com",
		"vss.acme.com.:8080":   "vss.acme.com",
		"vss.acme.com.":        "vss.acme.com",
		"vss.acme.com:":        "vss.acme.com",
		"localhost":            "localhost",
		"vss_api:8080":         "vss_api",
		"127.0.0.1:8080":       "127.0.0.1",
		"[::1]":                "::1",
		"[::1]:8080":           "::1",
		"[2001:DB8:0:0::1]:80": "2001:db8::1",
		"":                     "",
	} {
		if got, ok := NormalHost(given); !ok || got != want {
			t.Errorf("%q: got %q, %v", given, got, ok)
		}
	}
	for _, given := range []string{
		".", "..", "a..b", ".a", "a.com..", "a.com:80:80", "a.com:http", "a.com:-1", "a.com:80.", "a b", "a/b", "a@b", "a%62",
		"a,b", "\x00", "ä", "\u212a", "[::1", "::1", "[::1]x", "[::1]:x", "[127.0.0.1]", "[fe80::1%25eth0]", "[]", "[acme.com]", "]",
	} {
		if got, ok := NormalHost(given); ok {
			t.Errorf("%q was taken as %q", given, got)
		}
	}
}

func TestABaseDomainIsAHostName(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"": "", "localhost": "localhost", "VSS.Example.com.": "vss.example.com"} {
		if got, err := NormalBaseDomain(given); err != nil || got != want {
			t.Errorf("%q: got %q, %v", given, got, err)
		}
	}
	for _, given := range []string{".", ".example.com", "example.com:443", "https://example.com", "*.example.com", "exämple.com"} {
		if _, err := NormalBaseDomain(given); err == nil {
			t.Errorf("took %q", given)
		}
		if _, err := NewService(nil, ServiceConfig{BaseDomain: given}); err == nil {
			t.Errorf("NewService took %q", given)
		}
	}
}
