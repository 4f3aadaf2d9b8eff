// Command tools is what a lab's cluster runs in its Pods: the process that holds a Pod's
// namespaces, a server that says who answers and who asks, and small clients of both.
//
//	tools pause            holds a Pod: reaps orphans and ends on SIGTERM
//	tools serve [PORT]     HTTP on this port (80), and a UDP echo on the same
//	tools get URL          prints the page; fails when there is none within 5 s
//	tools lookup NAME      prints the addresses of a name, sorted
//
// It is a tool of Corten's tests only; nothing of it is in the product.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

const patience = 5 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "pause":
		pause()
		return nil
	case len(args) == 1 && args[0] == "serve":
		return serve("80")
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 2 && args[0] == "get":
		return get(args[1])
	case len(args) == 2 && args[0] == "lookup":
		return lookup(args[1])
	}
	return fmt.Errorf("usage: tools pause | serve [PORT] | get URL | lookup NAME")
}

// pause is PID 1 of a Pod that shares its PID namespace, so it reaps.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for got := range signals {
		if got != syscall.SIGCHLD {
			return
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if pid <= 0 || err != nil {
				break
			}
		}
	}
}

// serve answers `NAME CLIENT:PORT`, as the lab's own servers do, until SIGTERM.
func serve(port string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	go echo(udp, name)
	server := http.Server{
		Addr: ":" + port,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s\n", name, r.RemoteAddr)
		}),
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan error, 1)
	go func() {
		<-ended
		limit, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- server.Shutdown(limit)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return <-done
}

func echo(udp net.PacketConn, name string) {
	buffer := make([]byte, 64<<10)
	for {
		_, client, err := udp.ReadFrom(buffer)
		if err != nil {
			return
		}
		// What cannot be sent is the client's loss, as with any datagram.
		_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %s\n", name, client), client)
	}
}

func get(url string) error {
	client := http.Client{Timeout: patience}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

func lookup(name string) error {
	limit, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(limit, name)
	if err != nil {
		return err
	}
	slices.Sort(addresses)
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}
