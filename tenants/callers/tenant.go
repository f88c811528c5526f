// Package callers says who calls: whose request it is, and which of that tenant's wallets sent it.
//
//   - [Directory] answers, from memory, which [Tenant] a host and a path name;
//   - [Authenticator] answers which wallet of that tenant sent a request;
//   - [Logins] are LNURL-auth, by which a wallet gets a token of the platform's.
//
// A request belongs to one tenant and one wallet of that tenant, and nothing crosses it (CONTRACT
// section 4): where it is not plain whose a request is, the answer is an error and never some tenant.
package callers

import "github.com/vss-cloud/vss-cloud/tenants"

// Tenant is a tenant as a [Directory] serves it, with what its callers are verified by. All requests share it: nobody
// changes it. One that the [tenants.Service] returns has no callers, which is why it is of another type.
type Tenant struct {
	*tenants.Tenant
	schemes *schemes
}
