// Package usage is what tenants did and have: counted, kept, summed up and read.
//
//   - [Meter] counts calls in memory;
//   - [Recorder] stores what it counted, tells who runs, and knows what every tenant has; one instance at a time does
//     for all what is done once: measure, sample, roll up, prune;
//   - [Events] are what people should hear of, once for each change of a state;
//   - [Reader] reads all of it, for people and for bills.
//
// Nothing of it is on a wallet's path: what the database does not take waits in bounded memory.
package usage
