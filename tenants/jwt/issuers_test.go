package jwt

import (
	"fmt"
	"strings"
	"testing"
)

// What issuers publish and send, in shape.
func TestTokensOfIssuersInUseAreTaken(t *testing.T) {
	t.Parallel()
	groups := strings.TrimSuffix(strings.Repeat(`"8b7f0c3e-3f6c-4a8e-9f0a-0d9d1c2b3a4f",`, 170), ",")
	for name, tc := range map[string]struct {
		alg, jwk, header, claims string // jwk and header take the kid
		audience                 AudienceRule
	}{
		"Keycloak": {
			alg:    "RS256",
			jwk:    `"kid":%q,"use":"sig","alg":"RS256","x5c":["MIIC"],"x5t":"x","x5t#S256":"y"`,
			header: `{"alg":"RS256","typ" : "JWT","kid" : %q}`,
			claims: `"jti":"onrtac:9a","aud":["vss","account"],"typ":"Bearer","azp":"app","sid":"7c","acr":"1","realm_access":{"roles":["offline_access"]},"resource_access":{"account":{"roles":["view-profile"]}},"scope":"openid"`,
		},
		"Entra, with 170 groups": {
			alg:    "RS256",
			jwk:    `"kid":%q,"use":"sig","x5t":"x","x5c":["MIIC"],"cloud_instance_name":"microsoftonline.com","issuer":"https://login.example/{tenantid}/v2.0"`,
			header: `{"typ":"JWT","alg":"RS256","x5t":"x","kid":%q}`,
			claims: `"aud":"vss","nbf":1700000000,"aio":"E2Zg","azp":"4d","azpacr":"0","oid":"00","rh":"0.AX","scp":"vss","tid":"9","uti":"v","ver":"2.0","groups":[` + groups + `]`,
		},
		"Firebase": {
			alg:    "RS256",
			jwk:    `"kid":%q,"use":"sig","alg":"RS256"`,
			header: `{"alg":"RS256","kid":%q,"typ":"JWT"}`,
			claims: `"aud":"vss","auth_time":1700000000,"user_id":"alice","firebase":{"identities":{},"sign_in_provider":"anonymous"}`,
		},
		"Cognito": {
			alg:      "RS256",
			jwk:      `"kid":%q,"use":"sig","alg":"RS256"`,
			header:   `{"kid":%q,"alg":"RS256"}`,
			claims:   `"origin_jti":"a","event_id":"b","token_use":"access","scope":"aws.cognito.signin.user.admin","auth_time":1700000000,"jti":"c","username":"alice","client_id":"app1"`,
			audience: NoAudience,
		},
		"Auth0": {
			alg:    "RS256",
			jwk:    `"kid":%q,"use":"sig","alg":"RS256","x5t":"x","x5c":["MIIC"]`,
			header: `{"alg":"RS256","typ":"at+jwt","kid":%q}`,
			claims: `"aud":["vss","https://acme.example/userinfo"],"scope":"openid profile","azp":"app","permissions":[]`,
		},
	} {
		kid := "AZn3/+=" + name
		f := issuerOf(tc.alg).key.fields
		jwk := fmt.Sprintf(`{"kty":"RSA","n":"%s==","e":%q,%s}`, f.N, f.E, fmt.Sprintf(tc.jwk, kid))
		// Beside it are keys that cannot be used, which cost nothing but themselves.
		document := `{"keys":[{"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA"},{"kty":"EC","crv":"P-256","x":"!","y":"!"},` + jwk + `]}`
		keys, skipped, err := readDocument([]byte(document))
		if err != nil || len(keys) != 1 || len(skipped) != 2 {
			t.Errorf("%s: %d keys, %v, %v", name, len(keys), skipped, err)
			continue
		}
		keys[0].State = Active
		rules := Standard()
		issuer := "https://issuer.example/" + name
		rules.Issuer, rules.AudienceRule, rules.Audiences = &issuer, OneOf, []string{"vss"}
		if tc.audience != "" {
			rules.AudienceRule, rules.Audiences = tc.audience, nil
		}
		token := issuerOf(tc.alg).raw(fmt.Sprintf(tc.header, kid),
			fmt.Sprintf(`{"iss":%q,"sub":"alice","iat":1700000000,"exp":1700003600,%s}`, issuer, tc.claims))
		claims, err := NewSet(keys).Verify(token, rules, now)
		if err != nil || claims.Subject != "alice" {
			t.Errorf("%s, %d bytes: %v", name, len(token), err)
		}
	}
}
