// Package app is what the commands of tetracast do: it reads the configuration,
// joins the rooms, which do not know each other, and starts and stops them in
// the order of the data.
//
// Each command has a configuration struct whose AddFlags method declares its
// flags, and a function that runs it until it is done or its context ends. The
// functions return errors; only cmd/tetracast writes them and ends the process.
package app
