// Command controlplane is a whole Kubernetes in one static binary: etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, and a
// node's kubelet and kube-proxy. The part is named by argv[0] or by the first
// argument:
//
//	controlplane kubectl get services
//	ln -s controlplane kubectl && ./kubectl get services
//
// It is a tool of Corten's tests only; nothing of it is in the product.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // build_info metric
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// parts that are cobra commands; etcd has an entry point of its own.
var parts = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func names() []string {
	names := []string{"etcd"}
	for name := range parts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func main() {
	if !slices.Contains(names(), filepath.Base(os.Args[0])) {
		if len(os.Args) < 2 || !slices.Contains(names(), os.Args[1]) {
			fmt.Fprintf(os.Stderr, "usage: controlplane {%s} [ARGUMENT]...\n", strings.Join(names(), "|"))
			os.Exit(2)
		}
		os.Args = os.Args[1:]
	}
	part := filepath.Base(os.Args[0])
	if part == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	os.Exit(cli.Run(parts[part]()))
}
