//! Debian's nginx.

use std::path::Path;

use lab::LabError;

use super::pair::{self, Half, SERVER};
use super::{Contender, Standing};
use crate::link::Link;

pub(super) struct Nginx;

fn settings(half: &Half<'_>) -> String {
    let (listen, next) = (half.listen, half.next);
    let root = half.certificate.root.display();
    let (chain, key) = (
        half.certificate.chain.display(),
        half.certificate.key.display(),
    );
    let (scheme, bind, tls) = match half.is_near() {
        true => (
            "https",
            "",
            format!(
                "proxy_ssl_certificate {chain};\nproxy_ssl_certificate_key {key};\n\
                 proxy_ssl_trusted_certificate {root};\nproxy_ssl_verify on;\nproxy_ssl_name {SERVER};\n\
                 proxy_ssl_protocols TLSv1.3;\n\
                 proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n"
            ),
        ),
        false => (
            "http",
            "ssl",
            format!(
                "ssl_certificate {chain};\nssl_certificate_key {key};\nssl_client_certificate {root};\n\
                 ssl_verify_client on;\nssl_protocols TLSv1.3;\n\
                 ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n"
            ),
        ),
    };
    let files = half.directory.display();
    // Connections are never given up for their age, and bodies never written to a disk.
    format!(
        "user root;\nworker_processes 2;\npid {files}/pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 12000; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 5m;\n\
         client_body_temp_path {files}/body;\nproxy_temp_path {files}/proxy;\nfastcgi_temp_path {files}/fastcgi;\n\
         uwsgi_temp_path {files}/uwsgi;\nscgi_temp_path {files}/scgi;\n\
         proxy_max_temp_file_size 0;\nproxy_buffer_size 16k;\nproxy_buffers 8 32k;\nproxy_busy_buffers_size 64k;\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_connect_timeout 1s;\n{tls}\
         upstream next {{ server {next}; keepalive 512; keepalive_requests 1000000000; }}\n\
         server {{ listen {listen} {bind} reuseport; location / {{ proxy_pass {scheme}://next; }} }}\n}}\n"
    )
}

impl Contender for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn between(&self) -> &'static str {
        "TLS 1.3, HTTP/1.1"
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        let line = pair::version(Path::new("nginx"), "-v")?;
        Ok(line.map(|line| line.replace("nginx version: nginx/", "nginx ")))
    }

    fn stand(&self, link: Link) -> Result<Standing, LabError> {
        pair::stand(link, |half| {
            let file = half.write("nginx.conf", &settings(half))?;
            let launch = half
                .launch("nginx")
                .args(["-g", "daemon off;", "-e", "stderr", "-c"]);
            Ok(launch.arg(file))
        })
    }
}
