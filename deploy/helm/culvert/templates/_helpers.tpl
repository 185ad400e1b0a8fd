{{- define "culvert.labels" -}}
app.kubernetes.io/name: culvert
app.kubernetes.io/component: node
{{- end }}

{{- define "culvert.image" -}}
{{ .Values.image.name }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* culvertd's configuration. The node's name comes from NODE_NAME. */ -}}
{{- define "culvert.config" -}}
{{- $set := dict "source" "kube" "socket" "/run/culvert/culvert.sock" "stateDir" "/var/lib/culvert" "listen" .Values.listen -}}
{{- $cni := dict "confDir" "/host/etc/cni/net.d" "conf" (printf "/etc/culvert/%s" .Values.cni.confName) -}}
{{- toYaml (merge $set (dict "cni" $cni) .Values.config) -}}
{{- end }}

{{- /* What the container runtime is told. 1.1.0 for those that know it: they ask for STATUS. */ -}}
{{- define "culvert.conflist" -}}
{{- /* Mappings of ports are a portmap's where one follows, never both plugins'. */ -}}
{{- $portMappings := true -}}
{{- range .Values.cni.chained }}{{ if eq .type "portmap" }}{{ $portMappings = false }}{{ end }}{{ end -}}
{{- $ours := dict "type" "culvert-cni" "socket" "/run/culvert/culvert.sock" "interface" .Values.cni.interface "logFile" .Values.cni.logFile
  "capabilities" (dict "ips" true "mac" true "portMappings" $portMappings) -}}
{{- toPrettyJson (dict "cniVersion" "1.0.0" "cniVersions" (list "1.0.0" "1.1.0") "name" "culvert" "plugins" (prepend .Values.cni.chained $ours)) -}}
{{- end }}
